"""A machine of the fleet: one worker for the GPU, one for what holds none, for a checkout of the project.

It says first what the machine lacks, and takes just the queues of the bases that it has.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from arbooth import dvcfiles
from arbooth.data.bases import PARTS, Base, load_base
from arbooth.doctor import Finding, fits
from arbooth.errors import InputError
from arbooth.owner import OWNER, end_with_owner, named
from arbooth.project import Project
from arbooth.settings import device_memory, without_secrets
from flows.deploy import HEARTBEAT, ensure_queues, has_remotes, make_pools, publish_pool
from flows.workspaces import sweep

PAUSE, SWEEP = 5.0, 60.0


def usable_bases(project: Project) -> tuple[list[Base], list[Finding]]:
    """The bases whose files are on this machine as recorded, and what is wrong with the others."""
    usable, findings = [], []
    for name in project.base_names():
        try:
            base = load_base(name, project.bases, project.weights)
            for part in PARTS:
                base.verified(part)
        except InputError as error:
            findings.append(Finding(f"base {name}", str(error), False, False, "its subjects go to other machines"))
            continue
        usable.append(base)
        findings.append(Finding(f"base {name}", f"{base.hash[:12]}, files as recorded"))
    return usable, findings


def look(project: Project) -> tuple[list[Base], list[Finding]]:
    """What this machine has and lacks for running subjects of a project."""
    import shutil

    params = project.params()
    bases, findings = usable_bases(project)
    device = project.device
    findings.append(Finding("device", f"{device}, {device_memory(device) / 2**30:.0f} GiB"))
    if params.base in [base.name for base in bases]:
        findings.append(fits(project, project.base(params), params))
    project.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(project.home).free / 2**30
    findings.append(Finding("disk", f"{free:.1f} GiB free", free > 2, False, "make room: a run needs two or more"))
    remote = has_remotes(project)
    findings.append(Finding("remotes", "git and DVC" if remote else "none: this machine alone"))
    if remote:
        findings += _remote(project)
    findings.append(_ledger(project))
    return bases, findings


def _remote(project: Project) -> list[Finding]:
    """Whether DVC's remote answers, asked for the photos of one subject."""
    photos = sorted((project.root / "photos").glob("*.dvc"))
    try:
        missing = dvcfiles.missing(project, [str(path.relative_to(project.root)) for path in photos[:1]])
    except InputError as error:
        return [Finding("DVC's remote", str(error), False, False, "runs will fail until it answers")]
    return [Finding("DVC's remote", f"it lacks {missing[0]}", False, False, "`dvc push` where it is")] if missing else []


def _ledger(project: Project) -> Finding:
    from arbooth.registry.ledger import ledger

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    try:
        with ledger(project.tracking_uri):
            return Finding("MLflow", without_secrets(project.tracking_uri))
    except InputError as error:
        return Finding("MLflow", str(error), False, False, "publishing waits until it answers")


def work(pool: str = "gpu", name: str = "", say: Callable[[str], None] = print) -> None:
    """Start the two workers and keep them running until this process is told to end.

    Raises:
        InputError: no server is named, or the machine has no base at all.
    """
    if not PREFECT_API_URL.value():
        raise InputError("PREFECT_API_URL is not set: set it to the address of the Prefect server")
    project = Project()
    project.params()
    bases, findings = look(project)
    for finding in findings:
        say(f"{finding.what}: {finding.found}" + ("" if finding.ok else f" ({finding.remedy})"))
    if not bases:
        raise InputError("this machine has no base model: run `arbooth base import`")
    for folder in sweep(project):
        say(f"removed {folder}, which a killed run left")
    queues = asyncio.run(_queues(pool, bases))
    name = name or f"{socket.gethostname()}-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
    commands = [
        [
            "--pool",
            pool,
            "--name",
            name,
            "--limit",
            "1",
            *(word for queue in queues for word in ("--work-queue", queue)),
        ],
        ["--pool", publish_pool(pool), "--name", f"{name}-publish", "--limit", "4"],
    ]
    _keep(project, commands, say)


async def _queues(pool: str, bases: list[Base]) -> list[str]:
    async with get_client() as client:
        await make_pools(client, pool)
        return await ensure_queues(client, pool, bases)


def _keep(project: Project, commands: list[list[str]], say: Callable[[str], None]) -> None:
    """A worker that ends is started again; all end when this process is told to."""
    environment = {
        **os.environ,
        "ARBOOTH_PROJECT": str(project.root),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # a server under load: asked again
        OWNER: named(),
    }
    processes: list[subprocess.Popen | None] = [None] * len(commands)
    ending = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    swept = time.monotonic()
    while not ending:
        for index, command in enumerate(commands):
            process = processes[index]
            if process is None or process.poll() is not None:
                if process is not None:
                    say(f"worker {command[3]} ended with {process.returncode}: started again")
                processes[index] = subprocess.Popen(
                    [sys.executable, "-m", "flows.work", *command],
                    cwd=project.root,
                    env=environment,
                    start_new_session=True,
                )
        if time.monotonic() - swept > SWEEP:
            swept = time.monotonic()
            sweep(project)
        time.sleep(1 if all(p and p.poll() is None for p in processes) else PAUSE)
    for process in processes:
        if process and process.poll() is None:
            process.terminate()
    for process in processes:
        if process:
            process.wait()


if __name__ == "__main__":  # one of the two, which ends with the process that started it
    end_with_owner()
    sys.argv = ["prefect", "worker", "start", "--type", "process", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__")
