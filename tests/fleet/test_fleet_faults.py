"""Processes, servers, cables, disks and remotes that go away in the middle of a run: it goes on without a hand.

Each once in the tests, in a stage of its own; `make soak` injects each FLEET_FAULTS times, in every stage by turn.
"""

import json
import os
import random
import subprocess
import time

import pytest
import yaml

from tests.fleet.hosts import wait_for
from tests.services import postgres_programs

pytestmark = [pytest.mark.heavy, pytest.mark.fleet, pytest.mark.timeout(2400)]
TIMES = int(os.environ.get("FLEET_FAULTS", "1"))
AWAY = 12.0


def kill_a_flow(fleet, name):
    """kill -9 of the flow's process alone."""
    assert fleet.hosts[name].kill("prefect.engine")


def kill_a_worker_and_its_flow(fleet, name):
    """kill -9 of everything on a machine that is at work; its service manager starts it again."""
    for words in ("fleet work", "flows.work", "prefect", "dvc", "arbooth "):
        fleet.hosts[name].kill(words)
    time.sleep(2)
    fleet.start_worker(name)


def kill_what_a_worker_just_took(fleet, name):
    """kill -9 of both workers of a machine and of a run that they took and that does not run yet: nobody reports it."""
    known = {pid for host in fleet.hosts.values() for pid in host.commands()}

    def taken():
        hosts = fleet.hosts.values()
        return [h for h in hosts if any("prefect.engine" in c and p not in known for p, c in h.commands().items())]

    (host, *_) = wait_for(taken, 300, 0.05)
    host.kill("flows.work")
    host.kill("prefect.engine")
    runs = fleet.api("/flow_runs/filter", {"limit": 200, "sort": "EXPECTED_START_TIME_DESC"})
    assert [run["name"] for run in runs if run["state_type"] == "PENDING"]


def kill_the_prefect_server(fleet, name):
    fleet.server.kill("prefect server start")
    time.sleep(AWAY)
    fleet.server.start(fleet.servers[0])


def kill_mlflow(fleet, name):
    fleet.server.kill("mlflow")
    time.sleep(3 * AWAY)
    fleet.server.start(fleet.servers[1])


def kill_postgres(fleet, name):
    """kill -9 of the database, under both servers."""
    fleet.server.kill("bin/postgres -D")
    wait_for(lambda: not [c for c in fleet.server.commands().values() if c.startswith("postgres:")], 20)
    time.sleep(AWAY / 2)
    (fleet.database / "data" / "postmaster.pid").unlink(missing_ok=True)
    programs = postgres_programs()
    fleet.server.start(f"exec setpriv --reuid=postgres --regid=postgres --clear-groups {programs}/postgres "
                       f"-D {fleet.database}/data -h {fleet.server.address} -p 5432 -k '' -c fsync=off -c max_connections=200")  # fmt: skip


def cut_a_machine_off(fleet, name):
    """Longer than the silence that counts as a crash."""
    host = fleet.hosts[name]
    host.cut()
    time.sleep(100)
    host.cut(off=False)


def fill_a_disk(fleet, name):
    """What runs write on one machine does not fit any more."""
    host = fleet.hosts[name]
    place = host.home / host.environment["CHECKOUT"] / ".arbooth" / "fleet"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], check=True)
    try:
        host.kill("prefect.engine")  # what has its files open already would not notice
        time.sleep(6 * AWAY)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def refuse_at_the_remote(fleet, name):
    """git and DVC's remote answer nobody."""
    fleet.server.kill("sshd")
    time.sleep(2 * AWAY)
    fleet.server.start(f"exec /usr/sbin/sshd -D -e -f {fleet.server.home.parent}/ssh/config")


def cancel_and_retry(fleet, name):
    fleet.command("arbooth fleet cancel")
    time.sleep(AWAY / 2)
    assert not [c for host in fleet.hosts.values() for c in host.commands().values() if "arbooth stage" in c]
    assert "started" in fleet.command("arbooth fleet retry").stdout


FAULTS = (
    kill_a_flow,
    kill_a_worker_and_its_flow,
    kill_what_a_worker_just_took,
    kill_the_prefect_server,
    kill_mlflow,
    kill_postgres,
    cut_a_machine_off,
    fill_a_disk,
    refuse_at_the_remote,
    cancel_and_retry,
)
SUBJECTS = ("rex", "tom")
# What a run starts, in order: each fault comes in another, and in the soak in every one by turn.
WORKS = ("stage preprocess", "stage tokenize", "stage prior", "stage finetune", "stage generate", "stage evaluate",
         "registry publish")  # fmt: skip


def machine_in(fleet, work: str) -> str:
    """The machine that is doing this now."""

    def found():
        return [
            name for name, host in fleet.hosts.items() if any(f"arbooth {work}" in c for c in host.commands().values())
        ]

    names = wait_for(found, 300, 0.05)
    assert names, f"no machine came to {work}"
    return names[0]


def change_everything(fleet, number: int) -> None:
    """Another crop and another seed: no stage finds its work done."""
    crops = {"00.png": [0.0, 0.0, 1.0, 1 - number / 10000]}
    values = {"seed": number, **{f"subjects.{name}.crops": crops for name in SUBJECTS}}
    script = (
        "from pathlib import Path\nfrom arbooth.edits import set_values\n"
        f"path = Path('params.yaml')\npath.write_text(set_values(path.read_text(), {values!r}))\n"
    )
    fleet.command(
        f"python - <<'E'\n{script}E\ngit commit -qam 'number {number}'; git push -q; arbooth fleet deploy"
    )


@pytest.fixture(scope="module")
def undisturbed(fleet):
    """What the subjects come to where nobody disturbs them, by seed: one repro in a checkout of its own."""
    fleet.desk.run("git clone -q ssh://$SERVER$DATA/animals.git ~/undisturbed")

    def made(commit: str) -> dict[str, dict[str, str]]:
        folder = fleet.desk.home / "undisturbed"
        targets = " ".join(f"subjects/{name}/dvc.yaml" for name in SUBJECTS)
        fleet.desk.run(
            f"cd ~/undisturbed; git fetch -q; git checkout -q {commit}; dvc pull -q photos/*.dvc; dvc repro -q {targets}"
        )
        return {name: hashes((folder / "subjects" / name / "dvc.lock").read_text()) for name in SUBJECTS}

    return made


def hashes(lock: str) -> dict[str, str]:
    """Every output of a record but the measured times, and what is made of those."""
    stages = yaml.safe_load(lock)["stages"]
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    return {path: md5 for path, md5 in outs.items() if not path.startswith(("artifacts/timing", "artifacts/evaluate"))}


def registered(fleet, name: str) -> list[dict]:
    """The versions of a subject: numbers, run ids and tags."""
    script = (
        "import json, mlflow, os\n"
        "c = mlflow.MlflowClient(os.environ['MLFLOW_TRACKING_URI'])\n"
        "e = c.get_experiment_by_name('arbooth')\n"
        f"v = [{{'run': x.run_id, 'tags': x.tags}} for x in c.search_model_versions(\"name = 'arbooth-{name}'\")]\n"
        f"r = [x.info.run_id for x in c.search_runs([e.experiment_id], \"tags.subject = '{name}'\")] if e else []\n"
        "print(json.dumps([v, r]))\n"
    )
    return json.loads(fleet.command(f"python - <<'E'\n{script}E").stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(TIMES))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_run_goes_on_without_a_hand(fleet, undisturbed, fault, number):
    work = WORKS[(FAULTS.index(fault) + number) % len(WORKS)]
    seed = 1000 + FAULTS.index(fault) + 100 * number
    before = {name: registered(fleet, name) for name in SUBJECTS}
    change_everything(fleet, seed)
    commit = fleet.command("git rev-parse HEAD").stdout.strip()
    for name in SUBJECTS:
        fleet.command(f"arbooth fleet run --only {name}")
    name = machine_in(fleet, work)
    time.sleep(random.Random(seed).uniform(0, 1))
    fault(fleet, name)
    fleet.wait_until_done(600, SUBJECTS)
    expected = undisturbed(commit)
    for name in SUBJECTS:
        versions, runs = registered(fleet, name)
        new = [one for one in versions if one["tags"]["git_commit"] == commit]
        assert len(new) == 1, (name, len(new))
        locks = json.loads(new[0]["tags"]["arbooth.locks"])
        assert hashes(locks[f"subjects/{name}/dvc.lock"]) == expected[name]
        assert len(versions) == len(before[name][0]) + 1 and sorted(runs) == sorted(v["run"] for v in versions)
    nothing_left(fleet)


def nothing_left(fleet) -> None:
    """No orphan, no workspace, no run that hangs."""

    def left():
        found = [
            c for host in fleet.hosts.values() for c in host.commands().values() if "arbooth stage" in c or " dvc " in c
        ]
        for host in fleet.hosts.values():
            found += map(str, (host.home / host.environment["CHECKOUT"] / ".arbooth" / "fleet").glob("*"))
        return found

    assert wait_for(lambda: not left(), 90), left()
    runs = fleet.api("/flow_runs/filter", {"limit": 200, "sort": "EXPECTED_START_TIME_DESC"})
    assert not [run["name"] for run in runs if run["state_type"] in ("RUNNING", "PENDING", "CANCELLING")]


def test_a_subject_that_always_fails_is_left_with_its_reason_and_holds_nobody_up(fleet):
    """A photo that is no photo: three tries, and the others are done."""
    fleet.command(
        "cp -r ~/Pictures/rex ~/Pictures/broken; arbooth subject add broken --class dog --photos ~/Pictures/broken"
    )
    fleet.command(
        "for f in photos/broken/*; do echo no photo > $f; done; dvc add -q photos/broken; dvc push -q photos/broken.dvc"
    )
    fleet.command("git add -A; git commit -qm broken; git push -q; arbooth fleet deploy")
    fleet.command("arbooth fleet run --only broken; arbooth fleet run --only mimi")
    row = wait_for(lambda: [line for line in fleet.command("arbooth fleet status --only broken").stdout.splitlines()
                            if "GaveUp" in line], 240, 5)  # fmt: skip
    assert row and "failed 3 times" in row[0] and "photos" in row[0], fleet.command("arbooth fleet status").stdout
    fleet.wait_until_done(240, ["mimi"])
