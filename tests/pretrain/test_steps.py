"""The recipe as a DVC project: every step is a stage, and DVC sees all that it reads."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pretrain.__main__ import STEPS
from pretrain.art import CLASSES
from pretrain.refusals import refusals
from tests.conftest import ROOT

HERE = ROOT / "pretrain"
STAGES = OmegaConf.to_container(OmegaConf.load(HERE / "dvc.yaml"))["stages"]
# Which files do a step's work, and what may change without changing what comes out.
MODULES = {
    "photos": ["render"],
    "tokenizer": ["train_tokenizer", "perception"],
    "transformer": ["train_transformer"],
    "encoders": ["train_encoders"],
}
HARMLESS = {"ledger", "checkpoint"}


def imported(modules: list[str]) -> set[str]:
    """Modules of the recipe that some of them need, themselves included."""
    todo, seen = list(modules), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse((HERE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pretrain"):
                own = node.module.partition(".")[2]
                todo += [own] if own else [alias.name for alias in node.names]
    return seen - HARMLESS


def test_every_step_is_a_stage_in_the_same_order():
    assert list(STAGES) == ["art", *STEPS]
    made = {next(iter(out)) for stage in STAGES.values() for out in stage.get("outs", [])}
    for name, stage in STAGES.items():
        assert stage["cmd"].endswith(f"python -m pretrain {name}") or name == "art"
        for dep in stage["deps"]:
            assert dep in made or dep == "work/photos" or (HERE / dep).exists(), (name, dep)


@pytest.mark.parametrize("name", STEPS)
def test_a_stage_depends_on_the_code_that_it_runs(name):
    own = {Path(dep).stem for dep in STAGES[name]["deps"] if "/" not in dep and dep.endswith(".py")}
    assert own == imported(MODULES.get(name, [name]))


def test_every_parameter_of_a_stage_is_in_params():
    params = OmegaConf.load(HERE / "params.yaml")
    for name, stage in STAGES.items():
        for key in stage.get("params", []):
            assert OmegaConf.select(params, key) is not None, (name, key)


def test_the_readme_names_every_step_and_class():
    text = (HERE / "README.md").read_text()
    assert set(STEPS) <= set(re.findall(r"python -m pretrain (\w+)", text))
    for noun in CLASSES:
        assert noun in text, noun


def test_bad_input_of_subject_photos_is_one_sentence(tmp_path):
    command = [sys.executable, "-m", "pretrain.subject_photos", str(tmp_path / "out"), "--modules", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_package_of_the_extra_is_named_and_no_other(capsys):
    with pytest.raises(SystemExit) as left, refusals():
        raise ModuleNotFoundError("No module named 'resvg_py'", name="resvg_py")
    assert left.value.code == 2 and "pip install -e '.[pretrain]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError), refusals():
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")


@pytest.mark.parametrize("step, missing", [("tokenizer", "pictures.npy"), ("transformer", "tokenizer.pt")])
def test_a_step_before_its_time_says_what_is_missing(tmp_path, step, missing):
    command = [sys.executable, "-m", "pretrain", step, "--work", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and missing in done.stderr and "Traceback" not in done.stderr
