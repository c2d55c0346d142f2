"""Fine-tuning that ends by itself, as a stage."""

import csv

import pytest

from arbooth.data.adapters import read_adapter
from arbooth.data.bases import load_base
from arbooth.data.tensors import open_tensors
from arbooth.errors import InputError
from arbooth.method import fit, stopping
from arbooth.project import Project
from arbooth.stages import run
from arbooth.subjects import add_subject
from tests.conftest import ROOT, copy_project


def test_auto_steps_are_told_and_recorded(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stopping, "EVERY", 1)
    monkeypatch.setattr(fit, "MOST", 4)
    caplog.set_level("INFO")
    values = {"finetune.steps": "auto", "finetune.sample_every": 2, "finetune.decay": 0.0}
    project = Project(copy_project(tmp_path / "project", **values))
    for stage, key in (("preprocess", "poodle"), ("tokenize", "poodle"), ("prior", "dog"), ("finetune", "poodle")):
        run(stage, key, project=project)
    settings = read_adapter(project.adapter("poodle", project.params()), "poodle").settings
    assert settings["steps"] == "auto" and 3 <= settings["steps_made"] <= 4
    assert f"ended after {settings['steps_made']} steps: " in caplog.text
    with (project.root / "artifacts/curves/poodle/validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, settings["steps_made"] + 1))
    with pytest.raises(InputError, match="finetune.steps: 'soon' is neither"):
        run("finetune", "poodle", project=project, overrides=["finetune.steps=soon"])


def test_photographs_are_learned_on_white_and_in_scenes_of_the_base(tmp_path):
    project = Project(copy_project(tmp_path / "project", **{"finetune.steps": 2, "finetune.sample_every": 0}))
    add_subject(project, "tabby", "cat", ROOT / "docs" / "tabby")
    for stage, key in (("preprocess", "tabby"), ("tokenize", "tabby"), ("prior", "cat"), ("finetune", "tabby")):
        run(stage, key, project=project)
    tensors, header = open_tensors(project.root / "artifacts" / "tokenize" / "tabby.safetensors")
    assert len(tensors["features"]) == 9 and tensors["captions"].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert all(f"a photo of <S*> cat {scene}" in header["prompts"] for scene in load_base("embedded").grounds)
    with pytest.raises(InputError, match="dvc repro"):
        run("finetune", "tabby", project=project, overrides=["templates.subject=my <S*> {class}"])
