"""What deploying refuses, and which failures are worth another try at once."""

import os
import subprocess
import sys

import pytest

from arbooth.errors import DvcFailed
from flows.personalize import may_pass
from tests.conftest import ROOT, copy_project


class Failed:
    def __init__(self, *lines):
        self.error = DvcFailed("dvc repro", 1, list(lines))

    def result(self):
        raise self.error


@pytest.mark.parametrize(
    "line, busy",
    [
        ("ERROR: Unable to acquire lock. Most likely another DVC process is running", True),
        ("ERROR: '/p/artifacts/prior/dog.safetensors' is busy, it is being blocked by:", True),
        ("error: prior@dog is already running as process 77: wait for it, or end it", True),
        ("ERROR: failed to reproduce 'classes/clock/dvc.yaml:prior': failed to run: arbooth stage prior clock", True),
        ("error: finetune.blocks: Extra inputs are not permitted", False),
        ("error: /home/sherlock/p/params.yaml is invalid", False),
    ],
)
def test_our_own_refusals_are_not_tried_again(line, busy):
    assert may_pass(None, None, Failed("some line", line)) is busy


@pytest.mark.heavy
def test_without_a_server_deploying_is_refused(tmp_path):
    folder = copy_project(tmp_path / "project")
    environment = {
        **os.environ,
        "ARBOOTH_PROJECT": str(folder),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path / "h"),
    }
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: PREFECT_API_URL is not set")
