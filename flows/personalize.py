"""Flows: personalise one subject, fill one class prior, publish one subject.

A run works in a workspace of its own, by DVC; what it made goes to DVC's remote, its record to Prefect's server, and a
run of `publish` takes both to the registry, outside the GPU's slot.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock
from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.concurrency.sync import concurrency
from prefect.deployments import run_deployment
from prefect.exceptions import Abort
from prefect.settings import PREFECT_API_URL
from prefect.states import Scheduled, State

from arbooth.errors import DvcFailed, InputError, RemoteFailed
from arbooth.graph import SUBJECT_STAGES, pipeline, pipelines, target
from arbooth.owner import PUBLISHER
from arbooth.project import Project
from arbooth.settings import without_secrets
from flows import records
from flows.workspaces import bring, call, has_room, make, push, remove

# Skipping and caching are DVC's alone.
UNCACHED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
HOUR = 3600
# MLflow's pages show chats and traces where an address doesn't say that one wants runs and models.
MLFLOW_VIEW = "?workflowType=machine_learning"
# No stage hangs for ever; fine-tuning of an 8B network is the longest.
TIMEOUTS = {"finetune": 24 * HOUR, "generate": 6 * HOUR, "evaluate": 3 * HOUR}
# A run that failed or was killed so often is left alone, with its reason.
ATTEMPTS = 3
GAVE_UP = "GaveUp"
# Labels of a run: which machine it is on, which of its attempts this is.
HOST, ATTEMPT = "arbooth.host", "arbooth.attempt"
# A machine without room on its disk takes nothing for so many seconds.
NO_ROOM = 60

# How DVC says that its repository or a path is locked, and how a stage does that somebody else is at it.
BUSY = re.compile(
    r"ERROR: (?:Unable to acquire lock\b|.* is busy, it is being blocked by:)|error: [a-z]+(?:@\S+)? is already running as process"
)
PROGRESS = re.compile(r"(\d+)%\|.*\| *(\S+ ?\[.*)")


def _say(line: str) -> None:
    get_run_logger().info(line)


def may_pass(_task, _run, state) -> bool:
    """Whether it helps to try again here: somebody else is at it, or what failed is not our own refusal."""
    try:
        state.result()
    except DvcFailed as error:
        ours = any(line.startswith("error: ") for line in error.lines)
        return not ours or any(BUSY.match(line) for line in error.lines)
    except InputError:
        return False
    except Exception:
        return True
    return False


@task(
    name="stage",
    task_run_name="{stage}@{key}",
    **UNCACHED,
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=may_pass,
)
def run_stage(project: Project, stage: str, key: str) -> None:
    """Bring one stage up to date; DVC skips it when nothing it depends on has changed."""
    project.dvc("repro", "--single-item", target(stage, key), say=_watched(stage, key))


def _watched(stage: str, key: str) -> Callable[[str], None]:
    """Hands lines to the log, and a bar's percentage to an artifact that the fleet's table reads."""
    shown: dict[str, Any] = {}

    def say(line: str) -> None:
        found = PROGRESS.search(line)
        if not found:
            _say(line)
            return
        description = f"{stage} {key}: {found[2].strip()}"
        if "id" not in shown:
            shown["id"] = create_progress_artifact(float(found[1]), description=description)
        else:
            update_progress_artifact(shown["id"], float(found[1]), description=description)

    return say


@task(name="prior", task_run_name="prior@{class_name}", **UNCACHED, retries=2, retry_delay_seconds=10,
      retry_condition_fn=may_pass, timeout_seconds=12 * HOUR)  # fmt: skip
def ensure_prior(host: Project, project: Project, class_name: str, remote: bool) -> bool:
    """Draw the class prior if nobody has; says whether it was drawn.

    However many subjects of a class run at once, one of them draws and the others wait.
    """
    if _has_prior(project, class_name, remote):
        return False
    with _alone(host, f"prior-{class_name}", remote):
        if _has_prior(project, class_name, remote):
            return False
        project.dvc("repro", "--single-item", target("prior", class_name), say=_watched("prior", class_name))
        if remote:
            push(project, pipeline("class", class_name))
        records.keep("class", class_name, project.read_locks(None, class_name))
    return True


@contextmanager
def _alone(host: Project, name: str, remote: bool) -> Iterator[None]:
    """One at a time: on a machine by a file's lock, which ends with its process, among machines by a concurrency limit.

    The limit's lease ends a minute after whoever held it was killed, but only a server that goes on running sees to
    that; the temporary one of a flow without a server would keep it for ever.
    """
    locks = host.home / ".arbooth" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / name):
        if not (remote and PREFECT_API_URL.value()):
            yield
            return
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(name, 1)
        with concurrency(name, strict=True, lease_duration=60):
            yield


def _has_prior(project: Project, class_name: str, remote: bool) -> bool:
    locks = records.last("class", class_name)
    if locks and locks != project.read_locks(None, class_name):
        bring(project, None, locks, remote)
    return project.has("prior", class_name)


@task(name="push", task_run_name="push@{subject}", **UNCACHED, retries=4, retry_delay_seconds=[5, 15, 45, 120],
      timeout_seconds=HOUR)  # fmt: skip
def push_subject(project: Project, subject: str) -> None:
    """Everything that the subject's stages made, to DVC's remote."""
    push(project, pipeline("subject", subject))


@task(name="take back", task_run_name="take-back@{name}", **UNCACHED, retries=20, retry_delay_seconds=3,
      timeout_seconds=HOUR)  # fmt: skip
def take_back(host: Project, name: str, locks: dict[str, str]) -> None:
    """On one machine without remotes the project itself gets what was made."""
    host.write_locks(locks)
    host.dvc("checkout", "-q", *pipelines(locks), say=lambda _: None)


@task(name="publish", task_run_name="registry@{subject}", **UNCACHED, retries=200, timeout_seconds=600,
      retry_delay_seconds=[10, 20, 40, 80, 160, 300], retry_condition_fn=lambda t, r, s: may_wait(s))  # fmt: skip
def register(project: Project, subject: str) -> dict:
    """Log and register the subject's files; tried again, with longer and longer pauses, while MLflow is away."""
    return json.loads(call(project, "registry", "publish", subject, "--json").splitlines()[-1])


def may_wait(state: State) -> bool:
    """Whether publishing may work later: the ledger is away or refuses; what is missing here will not come."""
    try:
        state.result()
    except InputError as error:
        return str(error).startswith("MLflow at ")
    except Exception:
        return True
    return False


@contextmanager
def opened(subject: str | None, class_name: str | None, commit: str | None) -> Iterator[tuple[Project, Project]]:
    """The checkout of this machine and a workspace for the run, which is gone afterwards."""
    host, run = Project(), f"{runtime.flow_run.id}-{os.getpid()}"
    try:
        yield host, open_workspace(host, run, subject, class_name, commit)
    finally:
        remove(host, run)


@task(name="workspace", **UNCACHED, retries=4, retry_delay_seconds=[5, 15, 45, 120], retry_condition_fn=may_pass,
      timeout_seconds=HOUR)  # fmt: skip
def open_workspace(host: Project, run: str, subject: str | None, class_name: str | None, commit: str | None) -> Project:
    """Clone and cut; a remote that does not answer is asked again for minutes."""
    return make(host, run, subject, class_name, commit, _say)


@task(name="bring", **UNCACHED, retries=4, retry_delay_seconds=[5, 15, 45, 120], retry_condition_fn=may_pass,
      timeout_seconds=HOUR)  # fmt: skip
def bring_made(project: Project, subject: str, class_name: str, remote: bool, locks: dict | None = None) -> bool:
    """The photos, and what was made before, here or elsewhere: DVC skips what is still right."""
    locks = locks or {**records.last("class", class_name), **records.last("subject", subject)}
    own = project.lock_files(subject, class_name)
    return bring(project, subject, {name: text for name, text in locks.items() if name in own}, remote)


@flow(name="personalize", flow_run_name="personalize-{subject}", persist_result=False)
def personalize(subject: str, commit: str | None = None) -> Any:
    """Photos of one subject to pictures, metrics and an adapter; a run of `publish` takes them to the registry.

    Args:
        subject: a name in params.yaml.
        commit: of the project's git remote; None works from the checkout as it stands.

    Raises:
        InputError: no such subject, or broken parameters.
    """
    return _with_attempts(lambda: _personalize(subject, commit))


def _personalize(subject: str, commit: str | None) -> dict[str, str]:
    remote = commit is not None
    with opened(subject, None, commit) as (host, project):
        class_name = next(iter(project.params().classes))
        bring_made(project, subject, class_name, remote)
        for stage in SUBJECT_STAGES:
            _still_ours()
            if stage == "finetune":
                ensure_prior(host, project, class_name, remote)
            run_stage.with_options(timeout_seconds=TIMEOUTS.get(stage, HOUR))(project, stage, subject)
        _still_ours()
        locks = project.read_locks(subject, class_name)
        if remote:
            push_subject(project, subject)
        else:
            take_back(host, subject, locks)
        records.keep("subject", subject, locks)
    _hand_on(subject, commit, locks)
    return locks


def _hand_on(subject: str, commit: str | None, locks: dict[str, str]) -> None:
    """Publishing is a run of its own where there is a server to schedule it."""
    if runtime.deployment.id is None:
        publish(subject, commit, locks)
        return
    made = hashlib.sha256(json.dumps([commit, locks], sort_keys=True).encode()).hexdigest()
    run_deployment(
        "publish/fleet",
        parameters={"subject": subject, "commit": commit, "locks": locks},
        flow_run_name=f"publish-{subject}",
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{runtime.flow_run.id} {made[:16]}",
        tags=[f"subject:{subject}"],
    )


@flow(name="publish", flow_run_name="publish-{subject}", persist_result=False)
def publish(subject: str, commit: str | None = None, locks: dict[str, str] | None = None) -> Any:
    """What a run of `personalize` made, to MLflow: a run, a registered version, its aliases.

    Args:
        locks: DVC's record of what was made; the one that was kept last by default.
    """
    return _with_attempts(lambda: _publish(subject, commit, locks))


def _publish(subject: str, commit: str | None, locks: dict[str, str] | None) -> dict:
    os.environ[PUBLISHER] = f"run {runtime.flow_run.id}"
    # A server that is away is waited for by this run, not by a call that says nothing for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    with opened(subject, None, commit) as (_, project):
        class_name = next(iter(project.params().classes))
        if not bring_made(project, subject, class_name, commit is not None, locks):
            raise RemoteFailed(f"what was made of {subject!r} is neither in the cache nor at the remote: run it again")
        if not project.has("evaluate", subject):
            raise InputError(f"params.yaml or the code has changed since {subject!r} was made: run it again")
        done = register(project, subject)
        _show(project, subject, done)
    return done


def _show(project: Project, subject: str, done: dict) -> None:
    """The contact sheet, the metrics and where to look, on Prefect's page of the run."""
    from PIL import Image

    params = project.params(subject)
    with Image.open(project.paths("generate", subject, params)[1]["sheet"]) as sheet:
        small = sheet.convert("RGB")
        small.thumbnail((900, 1800))
    data = io.BytesIO()
    small.save(data, "jpeg", quality=80)
    key = records.key_of("subject", subject)
    picture = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    create_image_artifact(picture, key=f"sheet-{key}", description=f"contact sheet of {subject}")
    metrics = json.loads(project.paths("evaluate", subject, params)[1]["metrics"].read_text())
    table = [{"metric": name, "value": f"{value:.3f}"} for name, value in metrics.items()]
    stands = "champion" if done["champion"] else f"candidate: {'; '.join(done['gate'])}"
    create_table_artifact(
        table, key=f"metrics-{key}", description=f"arbooth-{subject} version {done['version']}, {stands}"
    )
    address = without_secrets(project.tracking_uri)
    if address.startswith("http"):
        where = f"{address.rstrip('/')}/#/models/arbooth-{subject}/versions/{done['version']}{MLFLOW_VIEW}"
        create_link_artifact(where, link_text=f"arbooth-{subject} version {done['version']}", key=f"registry-{key}")


@flow(name="fill-prior", flow_run_name="fill-prior-{class_name}", persist_result=False)
def fill_prior(class_name: str, commit: str | None = None) -> Any:
    """Draw the prior of one class ahead of its subjects; says whether it had to be drawn.

    Raises:
        InputError: no such class.
    """
    return _with_attempts(lambda: _fill_prior(class_name, commit))


def _fill_prior(class_name: str, commit: str | None) -> bool:
    with opened(None, class_name, commit) as (host, project):
        drawn = ensure_prior(host, project, class_name, commit is not None)
        if commit is None:
            take_back(host, class_name, project.read_locks(None, class_name))
    return drawn


def _with_attempts(work: Callable[[], Any]) -> Any:
    """Run; the last of all attempts ends in a state that no automation takes up again."""
    if runtime.deployment.id is None:
        return work()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.id)
        if not has_room(Project()):
            _leave_to_others(client, run)
        attempt = int(str(run.labels.get(ATTEMPT, 0))) + 1
        client.update_flow_run_labels(run.id, {HOST: socket.gethostname(), ATTEMPT: attempt})
    if attempt > ATTEMPTS:
        return State(
            type=StateType.FAILED, name=GAVE_UP, message=f"ended {attempt - 1} times without a word: see the logs"
        )
    try:
        return work()
    except Exception as error:
        if attempt < ATTEMPTS:
            raise
        return State(type=StateType.FAILED, name=GAVE_UP, message=f"failed {attempt} times: {error}"[:2000])


def _leave_to_others(client: SyncPrefectClient, run: FlowRun) -> None:
    """Hand the run back, and hold this machine's slot for a while, so that another one takes it."""
    name = socket.gethostname()
    client.set_flow_run_state(
        run.id, Scheduled(name="AwaitingRetry", message=f"no room on the disk of {name}"), force=True
    )
    time.sleep(NO_ROOM)
    raise Abort(f"no room on the disk of {name}: left to another machine")


def _still_ours() -> None:
    """A machine that was cut off finds, when it comes back, its run taken over: it stops, and says no more of it."""
    if runtime.deployment.id is None:
        return
    with get_client(sync_client=True) as client:
        now = client.read_flow_run(runtime.flow_run.id)
    if now.run_count != runtime.flow_run.run_count or now.state is None or not now.state.is_running():
        raise Abort(f"taken over while this machine was cut off: {now.state and now.state.name} now")
