"""Shared fixtures: tiny networks, and throw-away projects that run the real pipeline."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW="ignore",
    HF_HUB_OFFLINE="1",
    ARBOOTH_DEVICE="cpu",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: what they start must not fight over cores
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
# Commands of this environment are found by the pipeline that the tests start.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# Small enough that a whole pipeline takes seconds.
FAST = {
    "prior.samples": 4,
    "finetune.steps": 4,
    "finetune.batch": 1,
    "finetune.last_scale_chance": 1.0,
    "finetune.sample_every": 0,
    "generate.images_per_prompt": 1,
    "generate.class_images": 2,
    "publish.minimum": {},  # four steps learn nothing
}
SCENES = re.compile(r"(  scenes:\n)(?:    - .*\n)+")
FEW = "".join(f"    - {prompt}\n" for prompt in ("a photo of {subject}", "a photo of {subject} in the snow", "a {subject} at night"))


@pytest.fixture(scope="module", autouse=True)
def _own_ledger():
    """MLflow puts the address that a caller gives it into the environment: not into the next module's."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


# Files whose tests start processes or train: `make quick` leaves them out.
SLOW = (
    "faults",
    "pretrain",
    "benchmark",
    "test_cli.py",
    "test_dvcfiles.py",
    "test_pipeline.py",
    "test_golden.py",
    "test_project.py",
    "test_graph.py",
    "test_publish.py",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if set(SLOW) & set(item.path.parts):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def tiny():
    """A random network with its quantiser and text features: small, the same at every call."""
    return make_tiny()


def make_tiny(patchify: bool = False):
    from types import SimpleNamespace

    from arbooth.model.config import TransformerConfig
    from arbooth.model.quantizer import Quantizer
    from arbooth.model.schedule import Schedule
    from arbooth.model.transformer import Transformer

    torch.manual_seed(0)
    quantizer = Quantizer(Schedule.custom([[1, 1], [2, 2], [4, 4]]), 8, patchify)
    net = Transformer(TransformerConfig(2, 64, 2, quantizer.token_bits, 128, chunks=2))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    net.requires_grad_(False).eval()
    side = 8 if patchify else 4
    return SimpleNamespace(
        net=net,
        quantizer=quantizer,
        features=torch.randn(3, 8, side, side),
        text=torch.randn(5, 128),
        other=torch.randn(7, 128),
    )


def fast(text: str, **values) -> str:
    """A params.yaml with the few steps of FAST and three prompts, and then other values."""
    from arbooth.edits import set_values

    return set_values(re.sub(SCENES, rf"\g<1>{FEW}", text), {**FAST, **values})


def copy_project(folder: Path, **values) -> Path:
    """A new project, as `arbooth init` makes it, with the demo's subject and the few steps of FAST."""
    from arbooth.creating import create

    project = create(folder, fast((ROOT / "params.yaml").read_text(), **values))
    shutil.copytree(ROOT / "photos" / "poodle", folder / "photos" / "poodle")
    return project.root


def set_params(folder: Path, **values) -> None:
    """Change values of a project's params.yaml by dotted name."""
    from arbooth.edits import set_values

    path = folder / "params.yaml"
    path.write_text(set_values(path.read_text(), values))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A fresh project's folder; the process stands in it."""
    folder = copy_project(tmp_path / "project")
    enter(folder, monkeypatch)
    return folder


def enter(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ARBOOTH_PROJECT", str(folder))


def arbooth(*arguments: str, cwd: Path | None = None, env: dict | None = None, check: bool = True):
    """Run the command line as a user does."""
    environment = {**os.environ, **(env or {})}
    if cwd is not None:
        environment["ARBOOTH_PROJECT"] = str(cwd)
    done = subprocess.run(
        [sys.executable, "-m", "arbooth", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if check and done.returncode:
        raise AssertionError(
            f"arbooth {' '.join(arguments)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def dvc(*arguments: str, cwd: Path, check: bool = True):
    environment = {**os.environ, "ARBOOTH_PROJECT": str(cwd)}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if check and done.returncode:
        raise AssertionError(f"dvc {' '.join(arguments)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
