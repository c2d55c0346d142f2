"""DVC's records, cut where a kill can cut them."""

import random
import subprocess

import pytest

from arbooth import records
from arbooth.errors import InputError
from arbooth.project import Project
from tests.conftest import arbooth, copy_project, dvc

LOCK = "subjects/poodle/dvc.lock"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("records") / "project")
    dvc("repro", "subjects/poodle/dvc.yaml:tokenize", cwd=folder)
    return folder


def test_every_cut_is_seen_or_harmless(folder):
    """DVC writes through a buffer, so the cut can be at any byte."""
    project, path = Project(folder), folder / LOCK
    whole = path.read_text()
    seen = 0
    try:
        for at in (0, *random.Random(0).sample(range(1, len(whole) - 1), 300)):
            path.write_text(whole[:at])
            if records.cut(project):
                seen += 1
            else:  # what is left is a lock that DVC reads
                from dvc.schema import COMPILED_LOCKFILE_SCHEMA
                from dvc.utils.strictyaml import validate
                from ruamel.yaml import YAML

                validate(YAML(typ="safe").load(path.read_text()), COMPILED_LOCKFILE_SCHEMA)
    finally:
        path.write_text(whole)
    assert seen > 100 and not records.cut(project)


@pytest.mark.parametrize("name", [LOCK, "dvc.lock", ".dvc/tmp/rwlock", "classes/dog/dvc.lock"])
def test_a_stage_goes_on_after_a_cut_and_doctor_mends_it(folder, name):
    project, path = Project(folder), folder / name
    before = (folder / LOCK).read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert records.cut(project) == ([] if name.endswith("rwlock") else [name])
    path.write_text("{schem")
    assert records.cut(project) == [name]
    assert f"cut in the middle: {name}" in arbooth("doctor", cwd=folder, check=False).stdout
    if name in (LOCK, ".dvc/tmp/rwlock"):
        project.repro("tokenize", "poodle")
        assert not records.cut(project)
        project.repro("preprocess", "poodle")
        path.write_text("{schem" if name != LOCK else before[:100])
    arbooth("doctor", "--fix", cwd=folder, check=False)
    assert not records.cut(project)
    dvc("repro", "subjects/poodle/dvc.yaml:tokenize", cwd=folder)
    assert (folder / LOCK).read_text() == before


def test_the_committed_record_comes_back(tmp_path):
    project = Project(copy_project(tmp_path / "project"))
    dvc("repro", "subjects/poodle/dvc.yaml:preprocess", cwd=project.root)
    path = project.root / LOCK
    whole = path.read_text()
    for command in (["init", "-q"], ["add", "-f", LOCK],
                    ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):  # fmt: skip
        subprocess.run(["git", *command], cwd=project.root, check=True)
    path.write_text(whole[: len(whole) // 3])
    assert records.mend(project, LOCK) == f"{LOCK}: the committed one, DVC brings it up to date"
    assert path.read_text() == whole
    assert not records.mend(project, LOCK)


def test_what_another_process_writes_is_left(folder):
    from dvc.lock import Lock

    project, path = Project(folder), folder / LOCK
    whole = path.read_text()
    path.write_text("")
    try:
        with Lock(str(folder / ".dvc/tmp/lock")), pytest.raises(InputError, match="held by a process of DVC's"):
            records.mend(project, LOCK)
        assert path.read_text() == ""
    finally:
        path.write_text(whole)
