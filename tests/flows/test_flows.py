"""A real Prefect server, worker and deployment, from trigger to Completed, with the result in MLflow."""

import os
import signal
import subprocess
import sys
import time

import pytest

from arbooth.registry.ledger import ledger
from tests.conftest import ROOT, copy_project
from tests.services import free_port, wait_until_up

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """A project, a server on a free port, and a worker; all gone afterwards."""
    folder = copy_project(tmp_path_factory.mktemp("flows") / "project")
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder.parent / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "ARBOOTH_PROJECT": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    started = []

    def start(*arguments):
        process = subprocess.Popen([sys.executable, "-m", "prefect", *arguments], cwd=folder, env=environment,
                                   start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        started.append(process)
        return process

    def call(*arguments, check=True):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    try:
        wait_until_up(
            f"http://127.0.0.1:{port}/api/health", start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        )
        said = call("flows.deploy", "--pool", "tests").stdout.splitlines()
        assert {"deployed personalize/poodle", "deployed fill-prior/dog"} <= set(said)
        start("worker", "start", "--pool", "tests", "--limit", "1")
        yield folder, call
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
        deadline = time.time() + 20
        for process in started:
            try:
                process.wait(max(1, deadline - time.time()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_deployment_runs_from_trigger_to_completed(prefect):
    folder, call = prefect
    done = call("prefect", "deployment", "run", "personalize/poodle", "--watch", "--watch-timeout", "300")
    assert "Completed" in done.stdout + done.stderr
    with ledger(f"sqlite:///{folder}/.arbooth/mlflow.db") as client:
        aliases = client.get_registered_model("arbooth-poodle").aliases
        assert {k: str(v) for k, v in aliases.items()} == {"candidate": "1", "champion": "1"}
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "-q", "subjects/poodle/dvc.yaml:evaluate"], cwd=folder
    )
    assert status.returncode == 0


def test_a_second_run_finds_everything_done(prefect):
    folder, call = prefect
    done = call("prefect", "deployment", "run", "personalize/poodle", "--watch", "--watch-timeout", "300")
    assert "Completed" in done.stdout + done.stderr
    with ledger(f"sqlite:///{folder}/.arbooth/mlflow.db") as client:
        assert len(client.search_model_versions("name = 'arbooth-poodle'")) == 1


def test_a_pool_of_another_type_is_refused(prefect):
    _, call = prefect
    call("prefect", "work-pool", "create", "boxes", "--type", "docker", check=False)
    done = call("flows.deploy", "--pool", "boxes", check=False)
    assert done.returncode == 2 and "is of type" in done.stderr and "not process" in done.stderr


def test_an_unknown_subject_fails_with_its_reason(prefect):
    _, call = prefect
    done = call("prefect", "deployment", "run", "personalize/poodle", "-p", "subject=nobody", "--watch",
                "--watch-timeout", "120", check=False)  # fmt: skip
    assert "Failed" in done.stdout + done.stderr


def test_priors_have_deployments_of_their_own(prefect):
    folder, call = prefect
    done = call("prefect", "deployment", "run", "fill-prior/dog", "--watch", "--watch-timeout", "120")
    assert "Completed" in done.stdout + done.stderr
    assert (folder / "artifacts" / "prior" / "dog.safetensors").is_file()
