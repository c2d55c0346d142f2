"""Photographs for the tokenizer: bounded crops that repeat."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import pretrain.render as render_module
from arbooth.data.files import write_json
from arbooth.errors import InputError
from pretrain.art import Drawing
from pretrain.render import crop_photos, load, load_photos
from pretrain.world import View, World


def test_crops_repeat_and_come_from_every_photograph(tmp_path):
    for name, colour in (("a.jpg", (200, 0, 0)), ("b.png", (0, 0, 200))):
        Image.new("RGB", (300, 200), colour).save(tmp_path / name)
    crop_photos(tmp_path, tmp_path, 6, 32, 0)
    first = np.array(load_photos(tmp_path))
    assert first.shape == (6, 32, 32, 3)
    assert (first[0::2, ..., 0] > 150).all() and (first[1::2, ..., 2] > 150).all()
    crop_photos(tmp_path, tmp_path, 6, 32, 0)
    assert np.array_equal(first, load_photos(tmp_path))


def test_views_come_back_as_they_were_written(monkeypatch, tmp_path):
    cat = Drawing("noto/cat", "cat", Image.new("RGBA", (8, 8), "red"))
    view = View(cat, "at night", "red", None, None, None)
    world = World({"cat": [cat]}, {"a crown": [cat]}, 16)
    monkeypatch.setattr(world, "view", lambda rng: view)
    monkeypatch.setattr(render_module, "_world", lambda *_: world)
    block, shown = render_module._chunk((tmp_path, "studio", 16, 0, 0, 2))
    np.save(tmp_path / "pictures.npy", block)
    write_json(tmp_path / "views.json", shown)
    pictures, views = load(tmp_path)
    assert np.array_equal(pictures, block) and views == [replace(view, drawing=replace(cat, rgba=None))] * 2
    block, shown = render_module._chunk((tmp_path, "others", 16, 0, 0, 2))
    assert shown[0]["colour"] is None and shown[0]["scene"] == "at night"
    write_json(tmp_path / "views.json", [{"drawing": "noto/cat"}])
    with pytest.raises(InputError, match="run the step `render` again"):
        load(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no photographs"):
        crop_photos(tmp_path, tmp_path, 6, 32, 0)
