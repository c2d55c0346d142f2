"""The units and the compose file under deploy/, by their own validators."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def test_the_units_are_what_systemd_takes(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed here: apt-get install systemd")
    for unit in DEPLOY.glob("*.service"):
        text = unit.read_text().replace("/opt/arbooth/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name.replace("@.", "@0.")).write_text(text)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["arbooth-mlflow.service", "arbooth-prefect.service", "arbooth-worker@0.service"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *(f"./{n}" for n in names)], cwd=tmp_path, capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "arbooth" in line]
    assert done.returncode == 0 and not ours, done.stderr


def test_the_compose_file_is_what_compose_takes():
    if not shutil.which("docker-compose"):
        pytest.skip("docker-compose is not installed here: apt-get install docker-compose")
    command = ["docker-compose", "-f", str(DEPLOY / "compose.yaml"), "config"]
    environment = {k: v for k, v in os.environ.items() if k != "POSTGRES_PASSWORD"}
    done = subprocess.run(command, env={**environment, "POSTGRES_PASSWORD": "secret"}, capture_output=True, text=True)
    assert done.returncode == 0 and "postgresql+asyncpg://arbooth:secret@postgres/prefect" in done.stdout, done.stderr
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0 and "set it in the environment" in refused.stderr
