"""Twelve subjects on two machines, from photos to a fresh checkout that has everything; docs/fleet.md word for word."""

import json

import pytest

from tests.fleet.conftest import CLASSES, SUBJECTS
from tests.fleet.hosts import blocks

pytestmark = [pytest.mark.heavy, pytest.mark.fleet, pytest.mark.timeout(2400)]


def test_everything_is_deployed(fleet):
    said = fleet.deployed
    assert {f"deployed personalize/{name}" for name in SUBJECTS} <= set(said.splitlines())
    assert "runs work from commit" in said
    assert fleet.command("arbooth fleet deploy").stdout.startswith("18 unchanged")


def test_the_pages_ask_the_server_that_they_came_from(fleet):
    said = fleet.desk.run("""python3 - <<'E'
import os, urllib.request
print(urllib.request.urlopen(f"http://{os.environ['SERVER']}:4200/ui-settings").read().decode())
E""").stdout
    assert json.loads(said)["api_url"] == "/api"


def test_what_is_not_committed_or_pushed_is_refused(fleet):
    refused = fleet.command("echo '# more' >> params.yaml; arbooth fleet deploy", check=False)
    assert refused.returncode == 2 and "params.yaml is changed but not committed" in refused.stderr
    refused = fleet.command("git commit -qam more; arbooth fleet deploy", check=False)
    assert refused.returncode == 2 and "is not at the remote 'origin': run `git push`" in refused.stderr
    fleet.command("git reset -q --hard HEAD~1")


def test_all_run_to_completed_and_each_prior_is_drawn_once(fleet):
    said = fleet.desk.run(fleet.run_block).stdout
    assert {f"started {name}" for name in SUBJECTS} <= set(said.splitlines())
    twice = fleet.command("arbooth fleet run --only rex").stdout
    assert twice == "rex is at work already\n"
    fleet.wait_until_done(900)
    drawn = [
        line for host in fleet.hosts.values() for line in host.logs().splitlines() if "drawing class samples" in line
    ]
    assert len(drawn) == len(CLASSES), drawn
    runs = fleet.api("/flow_runs/filter", {"limit": 200})
    assert {run["state_name"] for run in runs} == {"Completed"}
    assert all(host.logs().count("personalize-") for host in fleet.hosts.values())  # both had their part
    for host in fleet.hosts.values():
        assert not list((host.home / host.environment["CHECKOUT"] / ".arbooth" / "fleet").glob("*"))


def test_a_fresh_checkout_collects_everything(fleet):
    (collect,) = blocks("collect")
    said = fleet.desk.run(collect).stdout
    assert "collected 12 of 12 subjects" in said
    fresh = fleet.desk.home / "fresh"
    for name in SUBJECTS:
        assert (fresh / "artifacts" / "finetune" / f"{name}.safetensors").is_file()
        assert (fresh / "artifacts" / "sheets" / f"{name}.png").is_file()
        assert json.loads((fresh / "artifacts" / "evaluate" / f"{name}.json").read_text())
        assert len(list((fresh / "artifacts" / "generate" / name).glob("*.png"))) == 5  # three prompts, two of the class
    assert (fresh / "artifacts" / "report" / "index.html").is_file()
    status = fleet.desk.run("cd ~/fresh; dvc status --json").stdout
    changed = {name for name in json.loads(status) if not name.startswith(("publish", "stamp"))}
    assert not changed, status
    assert list((fresh / "outputs").rglob("*.png"))
    assert set(CLASSES) == {path.stem for path in (fresh / "artifacts" / "prior").glob("*.safetensors")}
    sheet = fresh / "artifacts" / "sheets" / f"{next(iter(SUBJECTS))}.png"
    before = sheet.read_bytes()
    sheet.unlink()
    where = "cd ~/fresh; export MLFLOW_TRACKING_URI=http://$SERVER:5000; "
    assert "collected 12 of 12 subjects" in fleet.desk.run(where + "arbooth fleet collect").stdout
    assert sheet.read_bytes() == before


def test_a_second_run_finds_everything_done(fleet):
    assert fleet.command("arbooth fleet run --changed").stdout == "12 unchanged\n"
    fleet.command("arbooth fleet run --only tom")
    fleet.wait_until_done(240, ["tom"])
    versions = fleet.command(
        "python -c \"import mlflow, os; c = mlflow.MlflowClient(os.environ['MLFLOW_TRACKING_URI']);"
        'print(len(c.search_model_versions(\\"name = \'arbooth-tom\'\\")))"'
    ).stdout
    assert versions.strip() == "1"


def test_a_subject_that_is_gone_loses_its_deployment(fleet):
    fleet.command("arbooth subject remove storm; git add -A; git commit -qm gone; git push -q")
    said = fleet.command("arbooth fleet deploy").stdout
    assert "removed personalize/storm" in said
    fleet.command(
        "git revert --no-edit HEAD -q 2>/dev/null || git revert --no-edit HEAD; git push -q; arbooth fleet deploy"
    )
