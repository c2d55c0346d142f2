"""A real Prefect server, worker and deployment, from trigger to Completed, with the result in MLflow."""

import os
import shutil
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
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=folder, env=environment,
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
            f"http://127.0.0.1:{port}/api/health",
            start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)),
        )
        said = call("flows.deploy", "--pool", "tests").stdout.splitlines()
        assert {"deployed personalize/poodle", "deployed fill-prior/dog"} <= set(said)
        start("arbooth", "fleet", "work", "--pool", "tests")
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


def published(folder, call, name="poodle"):
    """Wait until the fleet's table says that all is done; how the registry stands then."""
    for _ in range(150):
        rows = call("arbooth", "fleet", "status").stdout.splitlines()
        row = next(line for line in rows if line.startswith(name))
        if "Completed" in row:
            with ledger(f"sqlite:///{folder}/.arbooth/mlflow.db") as client:
                aliases = client.get_registered_model(f"arbooth-{name}").aliases
                versions = client.search_model_versions(f"name = 'arbooth-{name}'")
                return {k: str(v) for k, v in aliases.items()}, len(versions)
        assert "GaveUp" not in row, row
        time.sleep(1)
    raise AssertionError(rows)


def test_a_deployment_runs_from_trigger_to_the_registry(prefect):
    """From the folder as it stands: it gets the results back, and its pages show them."""
    folder, call = prefect
    assert call("arbooth", "fleet", "run", "--dry-run").stdout == "would start poodle\n"
    assert call("arbooth", "fleet", "run").stdout == "started poodle\n"
    assert call("arbooth", "fleet", "run").stdout == "poodle is at work already\n"
    assert published(folder, call) == ({"candidate": "1", "champion": "1"}, 1)
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "-q", "subjects/poodle/dvc.yaml:evaluate"], cwd=folder
    )
    assert status.returncode == 0
    assert not list((folder / ".arbooth" / "fleet").glob("*"))
    shown = call("prefect", "artifact", "ls").stdout
    assert "sheet-subject" in shown and "metrics-subject" in shown


def test_a_second_run_finds_everything_done(prefect):
    folder, call = prefect
    assert call("arbooth", "fleet", "run", "--changed").stdout == "1 unchanged\n"
    done = call("prefect", "deployment", "run", "personalize/poodle", "--watch", "--watch-timeout", "300")
    assert "Completed" in done.stdout + done.stderr
    assert published(folder, call)[1] == 1


def test_one_machine_collects_what_is_registered(prefect):
    folder, call = prefect
    shutil.rmtree(folder / "artifacts" / "generate")
    said = call("arbooth", "fleet", "collect").stdout
    assert "collected 1 of 1 subjects" in said and (folder / "artifacts" / "report" / "index.html").is_file()
    assert list((folder / "artifacts" / "generate" / "poodle").glob("*.png"))
    # Again: what came and is still there is not looked at, what is gone comes back.
    sheet, metrics = folder / "artifacts" / "sheets" / "poodle.png", folder / "artifacts" / "evaluate" / "poodle.json"
    before, read = sheet.read_bytes(), metrics.stat().st_mtime_ns
    sheet.unlink()
    call("arbooth", "fleet", "collect")
    assert sheet.read_bytes() == before and metrics.stat().st_mtime_ns == read


def test_what_is_not_there_is_one_sentence(prefect):
    _, call = prefect
    for arguments, words in (
        (("fleet", "run", "--only", "nobody"), "no subject is called 'nobody' (deployed: poodle)"),
        (("fleet", "run", "--priority", "9"), "--priority is 9: 1 comes first"),
        (("fleet", "collect", "--only", "x*"), "no subject is called 'x*' (known: poodle)"),
    ):
        refused = call("arbooth", *arguments, check=False)
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr
    assert call("arbooth", "fleet", "cancel").stdout == "nothing was at work\n"
    assert call("arbooth", "fleet", "retry").stdout == "nothing had failed\n"


def test_a_pool_of_another_type_is_refused(prefect):
    _, call = prefect
    call("prefect", "work-pool", "create", "boxes", "--type", "docker", check=False)
    done = call("flows.deploy", "--pool", "boxes", check=False)
    assert done.returncode == 2 and "is of type" in done.stderr and "not process" in done.stderr


def test_priors_have_deployments_of_their_own(prefect):
    folder, call = prefect
    done = call("prefect", "deployment", "run", "fill-prior/dog", "--watch", "--watch-timeout", "120")
    assert "Completed" in done.stdout + done.stderr
    assert (folder / "artifacts" / "prior" / "dog.safetensors").is_file()
