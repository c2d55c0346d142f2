"""dvc.yaml is what the stage table says, for the names that were checked."""

import pytest
import yaml

from arbooth.errors import InputError
from arbooth.graph import CLASS_STAGES, STAMP, SUBJECT_STAGES, TABLE, files, target
from arbooth.params import Params
from arbooth.project import Project
from tests.conftest import ROOT, copy_project, set_params


def test_the_files_in_the_repository_are_what_the_table_gives():
    project = Project(ROOT)
    assert project.stale_graph(project.params()) == []


def test_every_stage_stands_in_one_file_and_all_paths_in_one_stage():
    texts = files({"cat1": "cat", "cat2": "cat"}, ["cat"])
    stages = {name: yaml.safe_load(text)["stages"] for name, text in texts.items()}
    assert list(stages) == ["dvc.yaml", "classes/cat/dvc.yaml", "subjects/cat1/dvc.yaml", "subjects/cat2/dvc.yaml"]
    assert tuple(stages["subjects/cat1/dvc.yaml"]) == SUBJECT_STAGES
    assert tuple(stages["classes/cat/dvc.yaml"]) == CLASS_STAGES
    assert set(stages["dvc.yaml"]) == {"stamp", *TABLE} - set(SUBJECT_STAGES) - set(CLASS_STAGES)
    outs = []
    for entry in (entry for own in stages.values() for entry in own.values()):
        written = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
        outs += [next(iter(out)) if isinstance(out, dict) else out for out in written]
    assert len(outs) == len(set(outs)) and STAMP in outs
    assert not any("${" in text for text in texts.values())


def test_what_dvc_watches_is_what_the_stage_is_handed():
    stages = yaml.safe_load(files({"cat1": "cat"}, ["cat"])["subjects/cat1/dvc.yaml"])["stages"]
    for name in SUBJECT_STAGES:
        stage, watched = TABLE[name], stages[name]["params"]
        sections = {entry.split(".")[0] for entry in watched if isinstance(entry, str)}
        handed = set(stage.sections) - {"base", "subjects"}
        assert handed == sections - {"subjects"}
        assert watched[-1] == {STAMP: [*(["base"] if stage.base else []), f"code.{name}"]}
        assert {e for e in watched if str(e).startswith("subjects")} == {f"subjects.cat1.{f}" for f in stage.subject}


@pytest.mark.parametrize(
    "name", ["x; touch pwned; true", "../../precious/y", "$(id)", "a\nb", "`id`", "A", "", "a b", "-x"]
)
def test_no_unchecked_name_reaches_a_command_or_a_path(name):
    for subjects, classes in (({name: "cat"}, ["cat"]), ({"cat1": "cat"}, [name])):
        with pytest.raises(InputError, match="can't be named"):
            files(subjects, classes)


def test_a_name_put_into_params_by_hand_runs_nothing(tmp_path):
    """DVC reads params.yaml itself: the stage that always runs first refuses, and no stage has the name."""
    import subprocess
    import sys

    folder = copy_project(tmp_path / "project")
    outside = tmp_path / "precious.safetensors"
    outside.write_text("mine")
    text = (folder / "params.yaml").read_text()
    for bad in ("'x; touch pwned; true'", "'$(touch pwned)'", "../../precious"):
        entry = f"subjects:\n  {bad}: {{class: dog, prompts: scenes, crops: {{}}, overrides: {{}}}}"
        (folder / "params.yaml").write_text(text.replace("subjects:", entry, 1))
        done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, capture_output=True, text=True)
        assert done.returncode and "is invalid" in done.stderr, done.stderr
        assert not (folder / "pwned").exists() and outside.read_text() == "mine"
        (folder / "params.yaml").write_text(text)


def test_a_subject_added_by_hand_asks_for_the_graph(tmp_path):
    folder = copy_project(tmp_path / "project")
    text = (folder / "params.yaml").read_text()
    entry = "subjects:\n  rex: {class: dog, prompts: scenes, crops: {}, background: keep, captions: {}, overrides: {}}"
    (folder / "params.yaml").write_text(text.replace("subjects:", entry, 1))
    project = Project(folder)
    with pytest.raises(InputError, match="run `arbooth graph`"):
        project.write_stamp()
    assert project.write_graph() == ["subjects/rex/dvc.yaml"]
    assert project.write_stamp().is_file()
    (folder / "params.yaml").write_text(text)
    (folder / "subjects" / "rex" / "dvc.lock").write_text("schema: '2.0'\n")
    assert project.write_graph() == ["subjects/rex/dvc.yaml"]
    assert not (folder / "subjects" / "rex").exists()


def test_sections_exist_and_no_parameter_bears_a_name_that_dvc_ignores():
    fields = Params.model_fields
    assert {s for stage in TABLE.values() for s in stage.sections} == set(fields)
    for model in [Params, *(f.annotation for f in fields.values() if hasattr(f.annotation, "model_fields"))]:
        assert not {"size", "nfiles"} & set(model.model_fields)


def test_targets_are_how_dvc_calls_them():
    assert target("finetune", "poodle") == "subjects/poodle/dvc.yaml:finetune"
    assert target("prior", "dog") == "classes/dog/dvc.yaml:prior"
    assert target("publish") == "publish"


def test_a_base_that_changes_is_seen(tmp_path):
    folder = copy_project(tmp_path / "project")
    before = Project(folder).write_stamp().read_text()
    assert "embedded" in before
    set_params(folder, base="other")
    with pytest.raises(InputError, match="no base 'other'"):
        Project(folder).write_stamp()


LOCK = """schema: '2.0'
stages:
  prior:
    cmd: arbooth stage prior dog
    outs:
    - path: artifacts/prior/dog.safetensors
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
"""


@pytest.mark.parametrize(
    "name, text",
    [
        ("classes/dog/dvc.yaml", LOCK),
        ("subjects/dog/dvc.lock", LOCK),
        ("classes/../dvc.lock", LOCK),
        ("classes/cat/dvc.lock", LOCK),
        ("dvc.lock", LOCK),
        ("/etc/dvc.lock", LOCK),
        ("classes/dog/dvc.lock", LOCK.replace("artifacts/prior/dog.safetensors", "../../params.yaml")),
        ("classes/dog/dvc.lock", LOCK.replace("md5: 0123", "md5: ../x")),
        ("classes/dog/dvc.lock", "stages: []"),
        ("classes/dog/dvc.lock", "{"),
        ("classes/dog/dvc.lock", "!!python/object/apply:os.system ['true']"),
    ],
)
def test_a_record_from_elsewhere_must_fit(tmp_path, name, text):
    """It comes from a registry or a server: it names files of its own subject, and nothing else."""

    with pytest.raises(InputError, match="record of DVC's"):
        Project(tmp_path).write_locks({name: text})
    assert not list(tmp_path.iterdir())


def test_a_record_that_fits_is_written_once(tmp_path):

    project = Project(tmp_path)
    assert project.write_locks({"classes/dog/dvc.lock": LOCK}) == ["classes/dog/dvc.yaml"]
    assert project.write_locks({"classes/dog/dvc.lock": LOCK}) == []
    assert project.read_locks(None, "dog") == {"classes/dog/dvc.lock": LOCK}
