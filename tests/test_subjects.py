import shutil

import numpy as np
import pytest
from PIL import Image

from arbooth.errors import InputError
from arbooth.params import load_params
from arbooth.project import Project
from arbooth.stages import run
from arbooth.subjects import add_subject, remove_subject
from tests.data.test_cutout import scene


def test_adding_checks_copies_and_declares_and_keeps_comments(project):
    own = project.parent / "mine"
    shutil.copytree(project / "photos" / "poodle", own)
    before = (project / "params.yaml").read_text()
    lines = add_subject(Project(project), "bear", "teddy bear", own)
    assert any(line.startswith("added bear (teddy bear) with 5 photos in photos/bear; look at") for line in lines)
    params = load_params(project / "params.yaml")
    assert params.noun("bear") == "teddy bear"
    assert params.subjects["bear"].class_name == "teddy_bear"
    assert sorted(p.name for p in (project / "photos" / "bear").iterdir()) == [f"0{i}.jpg" for i in range(5)]
    after = (project / "params.yaml").read_text()
    comments = [line.split("#", 1)[1] for line in before.splitlines() if "#" in line]
    assert comments and all(comment in after for comment in comments)
    add_subject(Project(project), "dog2", "dog", own)
    remove_subject(Project(project), "bear")
    assert list(load_params(project / "params.yaml").subjects) == ["poodle", "dog2"]
    add_subject(Project(project), "bear", "teddy bear", own)  # the same photos, as a killed try leaves them
    remove_subject(Project(project), "bear")
    (own / "04.jpg").unlink()
    with pytest.raises(InputError, match="in the way"):
        add_subject(Project(project), "bear", "teddy bear", own)


def test_bad_photos_change_nothing(project):
    own = project.parent / "mine"
    own.mkdir()
    Image.new("RGB", (10, 10)).save(own / "a.png")
    before = (project / "params.yaml").read_text()
    with pytest.raises(InputError, match="too small"):
        add_subject(Project(project), "bear", "teddy bear", own)
    assert (project / "params.yaml").read_text() == before
    assert not (project / "photos" / "bear").exists()


def test_a_subject_already_under_photos_is_declared_in_place(project):
    shutil.copytree(project / "photos" / "poodle", project / "photos" / "rex")
    assert "photos/rex" in add_subject(Project(project), "rex", "dog", project / "photos" / "rex")[0]


def added(project, name, background=None):
    return add_subject(Project(project), name, "cat", project.parent / "mine", background=background)


def test_photographs_lose_their_background_where_the_base_paints_drawings(project):
    own = project.parent / "mine"
    own.mkdir()
    for seed in range(2):
        scene(seed=seed).save(own / f"{seed}.png")
    assert "the background is taken out: the embedded base paints drawings" in added(project, "cut")[0]
    assert any("these are photographs" in line for line in added(project, "kept", "keep"))
    with pytest.raises(InputError, match="--background is keep or remove, not 'blur'"):
        added(project, "odd", "blur")
    params = load_params(project / "params.yaml")
    assert {name: params.subjects[name].background for name in ("cut", "kept")} == {"cut": "remove", "kept": "keep"}
    more = {"finetune": {"steps": round(1.5 * params.finetune.steps)}}
    assert params.subjects["cut"].overrides == more and params.subjects["kept"].overrides == {}
    assert [params.template(name).endswith("on a white background") for name in ("cut", "kept")] == [True, False]
    for name, corner in (("cut", 244), ("kept", None)):
        run("preprocess", name)
        pixels = np.asarray(Image.open(project / "artifacts" / "preprocess" / name / "00.png"))
        assert ((pixels[[0, -1]] == corner).all() if corner else (pixels[[0, -1]] != 244).any()), name
    previews = [Image.open(project / "outputs" / f"{name}-preview.png").height for name in ("cut", "kept")]
    assert previews[0] > previews[1]  # before and after
    assert added(project, "asked", "remove")[0] == "the background is taken out; subjects.NAME.background says so"


def test_a_background_that_can_t_go_stays_and_is_told(project):
    own = project.parent / "mine"
    own.mkdir()
    for seed in range(2):
        scene(seed=seed).save(own / f"{seed}.png")
    grain = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(grain).save(own / "grain.png")
    Image.new("L", (64, 64)).save(own / "grain.mask.png")  # nothing is the subject
    lines = added(project, "some")
    assert lines[0].startswith("warning: the background stays (grain.png: no subject stands out")
    assert load_params(project / "params.yaml").subjects["some"].background == "keep"
    assert (project / "photos" / "some" / "grain.mask.png").is_file()
    with pytest.raises(InputError, match="grain.png: no subject stands out"):
        added(project, "none", "remove")
    assert "none" not in load_params(project / "params.yaml").subjects
