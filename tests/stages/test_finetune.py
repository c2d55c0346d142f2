"""Fine-tuning that ends by itself, as a stage."""

import csv

import pytest

from arbooth.data.adapters import read_adapter
from arbooth.errors import InputError
from arbooth.method import fit, stopping
from arbooth.project import Project
from arbooth.stages import run
from tests.conftest import copy_project


def test_auto_steps_are_told_and_recorded(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stopping, "EVERY", 1)
    monkeypatch.setattr(fit, "MOST", 4)
    caplog.set_level("INFO")
    project = Project(copy_project(tmp_path / "project", **{"finetune.steps": "auto", "finetune.sample_every": 2}))
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
