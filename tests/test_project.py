"""A project is a folder: several at once, anywhere, with machine state that outlives experiments."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from arbooth.creating import IGNORED, init, workspace
from arbooth.errors import InputError
from arbooth.project import Project
from arbooth.recipes import names, params_of
from tests.conftest import ROOT, arbooth, copy_project, dvc, set_params


@pytest.fixture
def clean(monkeypatch):
    for name in ("ARBOOTH_PROJECT", "ARBOOTH_DEVICE", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_repository_is_what_init_and_subject_add_make():
    from arbooth.edits import add_entry

    entry = {"class": "dog", "prompts": "scenes", "crops": {}, "background": "keep", "captions": {}, "overrides": {}}
    text = add_entry(add_entry(params_of(), "subjects", "poodle", entry), "classes", "dog", {"noun": "dog"})
    assert text == (ROOT / "params.yaml").read_text()
    for name in (".gitignore", ".dvcignore"):
        lines = (ROOT / name).read_text().splitlines()
        assert [line for line in IGNORED[name] if line not in lines] == []


@pytest.mark.parametrize("recipe", names())
def test_every_recipe_makes_a_valid_project(tmp_path, clean, recipe):
    said = init(tmp_path / "mine", recipe)
    params = Project(tmp_path / "mine").params()
    assert (params.base in said[-4]) == (params.base != "embedded")
    assert said[-2:] == ["  dvc repro", "  arbooth summary"]
    for name in (".git", ".dvc", "dvc.yaml", ".gitignore", ".dvcignore"):
        assert (tmp_path / "mine" / name).exists()


def test_init_keeps_what_is_there_and_knows_its_place(tmp_path, clean):
    (tmp_path / ".gitignore").write_text("mine\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    init(tmp_path / "sub")  # inside another repository
    assert not (tmp_path / "sub" / ".git").exists() and (tmp_path / "sub" / ".dvc").is_dir()
    init(tmp_path)
    assert (tmp_path / ".gitignore").read_text().startswith("mine\n/artifacts/\n")
    with pytest.raises(InputError, match="is a project already"):
        init(tmp_path)
    with pytest.raises(InputError, match="no recipe 'fast'"):
        init(tmp_path / "other", "fast")
    assert not (tmp_path / "other").exists()


def test_settings_belong_to_a_project(tmp_path, clean):
    """A server holds many: what one says in its .env does not reach another, and empty means not set."""
    one, two = (Project(copy_project(tmp_path / name)) for name in ("one", "two"))
    (one.root / ".env").write_text("ARBOOTH_WEIGHTS=~/heavy\nMLFLOW_TRACKING_URI=http://127.0.0.1:1\nARBOOTH_DEVICE=\n")
    assert one.weights == Path.home() / "heavy" and two.weights == two.root / ".arbooth" / "weights"
    assert one.tracking_uri == "http://127.0.0.1:1"
    assert two.tracking_uri == f"sqlite:///{two.root}/.arbooth/mlflow.db"
    assert one.device.type == "cpu"
    clean.setenv("ARBOOTH_RESUME", "elsewhere")
    assert Project(one.root).resume_file("poodle") == one.root / "elsewhere" / "poodle.pt"
    clean.setenv("ARBOOTH_CHECKPOINT_SECONDS", "often")
    with pytest.raises(InputError, match="^ARBOOTH_CHECKPOINT_SECONDS is invalid"):
        _ = Project(two.root).settings


def test_several_projects_work_in_threads(tmp_path, clean):
    import arbooth as package

    projects = [Project(copy_project(tmp_path / str(k), seed=k)) for k in range(3)]
    threads = [threading.Thread(target=package.run, args=("prior", "dog"), kwargs={"project": p}) for p in projects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = [(p.root / "artifacts" / "prior" / "dog.safetensors").read_bytes() for p in projects]
    assert len(set(drawn)) == 3


def test_where_the_project_is(tmp_path, clean):
    clean.chdir(tmp_path)
    assert Project().root == tmp_path
    clean.setenv("ARBOOTH_PROJECT", "~/elsewhere")
    assert Project().root == Path.home() / "elsewhere"
    clean.setenv("DVC_STAGE", "dvc.yaml:stamp")  # DVC says where a stage works
    assert Project().root == tmp_path


def test_a_subjects_overrides_hold_through_every_door(tmp_path):
    folder = copy_project(tmp_path / "project")
    set_params(folder, **{"generate.guidance": 3.0, "subjects.poodle.overrides": {"generate": {"guidance": 1.5}}})
    project = Project(folder)
    assert project.params().sampling["guidance"] == 3.0
    assert project.params("poodle").sampling["guidance"] == project.params().of_subject("poodle").sampling["guidance"]
    assert project.params("poodle").sampling["guidance"] == 1.5


@pytest.mark.heavy
def test_a_workspace_does_one_subjects_work_and_its_lock_holds_in_the_project(tmp_path):
    folder = copy_project(tmp_path / "project")
    arbooth("subject", "add", "rex", "--class", "cat", "--photos", str(folder / "photos" / "poodle"), cwd=folder)
    dvc("remote", "add", "-q", "-d", "store", "../store", cwd=folder)
    assert "url = ../../store" in (folder / ".dvc" / "config").read_text()
    project = Project(folder)
    cut = workspace(project, tmp_path / "cut" / "deep" / "er", "poodle", "dog")
    assert list(cut.params().subjects) == ["poodle"] and list(cut.params().classes) == ["dog"]
    assert cut.tracking_uri == project.tracking_uri and cut.weights == project.weights
    dvc("repro", "subjects/poodle/dvc.yaml", cwd=cut.root)
    dvc("push", "-q", "subjects/poodle/dvc.yaml:preprocess", cwd=cut.root)
    assert list((tmp_path / "store" / "files").rglob("*.dir"))
    for name in ("subjects/poodle/dvc.lock", "classes/dog/dvc.lock"):
        shutil.copy(cut.root / name, folder / name)
    project.write_stamp()
    dvc("checkout", "subjects/poodle/dvc.yaml", "classes/dog/dvc.yaml", cwd=folder)
    assert project.is_current("evaluate", "poodle") and not project.is_current("evaluate", "rex")


@pytest.mark.heavy
def test_an_experiment_in_a_temporary_folder_uses_this_ledger_and_these_weights(tmp_path, clean):
    """`dvc exp run --temp` deletes its folder: what outlives it belongs here."""
    folder = copy_project(tmp_path / "project")
    dvc("add", "-q", "photos/poodle", cwd=folder)
    for line in ("git config user.email a@b.c", "git config user.name a", "git add -A", "git commit -qm all"):
        subprocess.run(line.split(), cwd=folder, check=True)
    # A variable that names the project must not lead the experiment's stages out of its folder.
    environment = {**os.environ, "ARBOOTH_PROJECT": str(folder), "ARBOOTH_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-S", "finetune.steps=3"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / ".arbooth" / "mlflow.db").is_file()
    assert not (folder / "artifacts" / "finetune").exists()
    from arbooth.registry.ledger import ledger

    with ledger(Project(folder).tracking_uri) as client:
        assert client.get_registered_model("arbooth-poodle")
