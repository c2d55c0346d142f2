"""DVC's records, cut where a kill can cut them."""

import random
import re
import shutil
import subprocess

import pytest

from arbooth import dvcfiles
from arbooth.errors import InputError
from arbooth.project import Project
from tests.conftest import arbooth, copy_project, dvc

LOCK = "subjects/poodle/dvc.lock"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("files") / "project")
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
            if dvcfiles.cut(project):
                seen += 1
            else:  # what is left is a lock that DVC reads
                from dvc.schema import COMPILED_LOCKFILE_SCHEMA
                from dvc.utils.strictyaml import validate
                from ruamel.yaml import YAML

                validate(YAML(typ="safe").load(path.read_text()), COMPILED_LOCKFILE_SCHEMA)
    finally:
        path.write_text(whole)
    assert seen > 100 and not dvcfiles.cut(project)


@pytest.mark.parametrize("name", [LOCK, "dvc.lock", ".dvc/tmp/rwlock", "classes/dog/dvc.lock"])
def test_a_stage_goes_on_after_a_cut_and_doctor_mends_it(folder, name):
    project, path = Project(folder), folder / name
    before = (folder / LOCK).read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert dvcfiles.cut(project) == ([] if name.endswith("rwlock") else [name])
    path.write_text("{schem")
    assert dvcfiles.cut(project) == [name]
    assert f"cut in the middle: {name}" in arbooth("doctor", cwd=folder, check=False).stdout
    if name in (LOCK, ".dvc/tmp/rwlock"):
        project.repro("tokenize", "poodle")
        assert not dvcfiles.cut(project)
        project.repro("preprocess", "poodle")
        path.write_text("{schem" if name != LOCK else before[:100])
    arbooth("doctor", "--fix", cwd=folder, check=False)
    assert not dvcfiles.cut(project)
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
    assert dvcfiles.mend(project, LOCK) == f"{LOCK}: the committed one, DVC brings it up to date"
    assert path.read_text() == whole
    assert not dvcfiles.mend(project, LOCK)


def test_what_another_process_writes_is_left(folder):
    from dvc.lock import Lock

    project, path = Project(folder), folder / LOCK
    whole = path.read_text()
    path.write_text("")
    try:
        with Lock(str(folder / ".dvc/tmp/lock")), pytest.raises(InputError, match="held by a process of DVC's"):
            dvcfiles.mend(project, LOCK)
        assert path.read_text() == ""
    finally:
        path.write_text(whole)


def test_what_files_name_comes_in_parts(folder, monkeypatch):
    """The same files as `dvc checkout` brings, and DVC calls them current."""
    monkeypatch.setattr(dvcfiles, "_PART", 2)
    project = Project(folder)
    names = [f"photos/copy-{number}.dvc" for number in range(5)]
    for name in names:
        shutil.copytree(folder / "photos" / "poodle", (folder / name).with_suffix(""))
    dvc("add", "-q", *(name.removesuffix(".dvc") for name in names), cwd=folder)
    for name in names:
        shutil.rmtree((folder / name).with_suffix(""))
    dvc("remote", "add", "-q", "-d", "near", "../near", cwd=folder)
    dvc("push", "-q", *names[3:], cwd=folder)
    dvcfiles.pull(project, names[:3], remote=False)
    dvc("status", "-q", *names[:3], cwd=folder)
    shutil.rmtree(folder / ".dvc" / "cache")
    dvcfiles.pull(project, names[3:], remote=True)
    expected = sorted(path.read_bytes() for path in (folder / "photos" / "poodle").iterdir())
    for name in names:
        assert sorted(path.read_bytes() for path in (folder / name).with_suffix("").iterdir()) == expected
    dvc("status", "-q", *names[3:], cwd=folder)


def test_what_the_cache_lost_is_named(folder):
    project, name = Project(folder), "photos/lost.dvc"
    shutil.copytree(folder / "photos" / "poodle", folder / "photos" / "lost")
    dvc("add", "-q", "photos/lost", cwd=folder)
    shutil.rmtree(folder / "photos" / "lost")
    tracked = (folder / name).read_text()
    (folder / name).write_text(re.sub("md5: [0-9a-f]{32}", f"md5: {'0' * 32}", tracked))
    with pytest.raises(InputError, match="DVC's cache has not got photos/lost: push it where it was made"):
        dvcfiles.pull(project, [name], remote=False)
    with pytest.raises(InputError, match="neither DVC's cache nor its remote has photos/lost"):
        dvcfiles.pull(project, [name], remote=True)


def test_what_the_remote_lacks_is_named(folder, tmp_path):
    project, names = Project(folder), ["photos/here.dvc", "photos/there.dvc"]
    for number, name in enumerate(names):
        photos = (folder / name).with_suffix("")
        shutil.copytree(folder / "photos" / "poodle", photos)
        sorted(photos.iterdir())[0].unlink() if number else None
        dvc("add", "-q", f"photos/{photos.name}", cwd=folder)
    dvc("remote", "add", "-q", "-d", "storage", str(tmp_path / "remote"), cwd=folder)
    assert dvcfiles.missing(project, names) == names
    dvc("push", "-q", names[1], cwd=folder)
    assert dvcfiles.missing(project, names) == names[:1]
    (folder / names[0]).write_text("outs: []\n")
    with pytest.raises(InputError, match="here.dvc is no file of DVC's .*: `dvc add` its folder again"):
        dvcfiles.missing(project, names)
    for kind in ("ssh", "http"):
        dvc("remote", "modify", "-q", "storage", "url", f"{kind}://me:secret@127.0.0.1:9/remote", cwd=folder)
        with pytest.raises(InputError, match="DVC's remote does not answer: ") as refused:
            dvcfiles.missing(project, names[1:])
        assert "secret" not in str(refused.value)
