import shutil

import pytest
from PIL import Image

from arbooth.errors import InputError
from arbooth.params import load_params
from arbooth.project import Project
from arbooth.subjects import add_subject, remove_subject


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
