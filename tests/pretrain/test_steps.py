"""The recipe as a DVC project: every step is a stage, and what a stage names exists."""

import re
from pathlib import Path

from omegaconf import OmegaConf

from pretrain.__main__ import STEPS

HERE = Path(__file__).resolve().parents[2] / "pretrain"


def test_every_step_is_a_stage_in_the_same_order():
    stages = OmegaConf.to_container(OmegaConf.load(HERE / "dvc.yaml"))["stages"]
    assert list(stages) == list(STEPS)
    made = {next(iter(out)) for stage in stages.values() for out in stage.get("outs", [])}
    for name, stage in stages.items():
        assert stage["cmd"].endswith(f"python -m pretrain {name}")
        for dep in stage["deps"]:
            assert dep in made or dep == "work/photos" or (HERE / dep).exists(), (name, dep)


def test_every_parameter_of_a_stage_is_in_params():
    params, stages = OmegaConf.load(HERE / "params.yaml"), OmegaConf.load(HERE / "dvc.yaml").stages
    for name, stage in stages.items():
        for key in stage.get("params", []):
            assert OmegaConf.select(params, key) is not None, (name, key)


def test_the_readme_names_every_step():
    assert set(STEPS) <= set(re.findall(r"python -m pretrain (\w+)", (HERE / "README.md").read_text()))
