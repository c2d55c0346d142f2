import numpy as np
import pytest
from PIL import Image

from arbooth.data.bases import GROUND_PART, load_base
from arbooth.data.photos import picture_of, read_photos
from arbooth.data.views import views_of
from arbooth.errors import InputError
from arbooth.method.prompts import View
from tests.conftest import ROOT

NAMES = [f"{letter}.jpg" for letter in "abcdef"]


def test_a_cut_out_is_seen_on_a_light_ground_and_on_one_of_the_base():
    base = load_base("embedded")
    views = views_of(NAMES, "remove", base)
    assert views[:6] == [View(name) for name in NAMES] and [view.photo for view in views[6:]] == NAMES
    assert {view.ground for view in views[6:]} == set(base.grounds) and views[11].ground == views[6].ground
    few = views_of(NAMES[:2], "remove", base)[2:]
    assert [view.ground for view in few] == base.grounds and [view.photo for view in few[:3]] == ["a.jpg", "b.jpg", "a.jpg"]
    assert views_of(NAMES, "keep", base) == [View(name) for name in NAMES]


def test_a_base_without_grounds_has_light_ones_alone():
    base = load_base("embedded")
    files = {part: entry for part, entry in base.record["files"].items() if not part.startswith(GROUND_PART)}
    bare = type(base)("bare", {**base.record, "files": files}, base.folder)
    assert bare.grounds == [] and views_of(NAMES, "remove", bare) == [View(name) for name in NAMES]
    assert bare.hash == base.hash and bare.content != base.content  # adapters go with either, pictures of photos don't


@pytest.fixture(scope="module")
def tabby():
    """The README's photographs."""
    return {photo.path.name: photo for photo in read_photos(ROOT / "docs" / "tabby", 64, 10**6).photos}


def test_photographs_are_cut_out_and_set_on_the_ground_that_is_named(tabby):
    base = load_base("embedded")
    for view in views_of(list(tabby), "remove", base):
        pixels = np.asarray(picture_of(tabby[view.photo], view.ground, base, None, "remove")).astype(int)
        light = np.asarray(picture_of(tabby[view.photo], None, base, None, "remove")).astype(int)
        cat = light.max(-1) < 120  # dark, before a light wall with dark lines
        assert pixels.shape == (128, 128, 3) and 0.08 < cat.mean() < 0.3
        assert np.abs(pixels - light)[cat].mean() < 12, "the subject is the same on every ground"
        if view.ground:
            with Image.open(base.verified(GROUND_PART + view.ground)) as ground:
                empty = np.asarray(ground.convert("RGB")).astype(int)
            assert np.abs(pixels - empty)[light.min(-1) > 240].mean() < 12


def test_a_ground_that_was_changed_is_refused(tabby, tmp_path):
    base = load_base("embedded")
    name = base.grounds[0]
    entry = base.record["files"][GROUND_PART + name]
    (tmp_path / "grounds").mkdir()
    other = type(base)("other", base.record, tmp_path)
    with pytest.raises(InputError, match="not on this machine"):
        picture_of(tabby["view-02.jpg"], name, other, None, "remove")
    Image.new("RGB", (128, 128)).save(tmp_path / entry["path"])
    with pytest.raises(InputError, match="is not the file that base 'other' was recorded with"):
        picture_of(tabby["view-02.jpg"], name, other, None, "remove")
