"""Many subjects at once: start them, see how they stand, collect what they came to. Prefect schedules, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterTaskRunId,
    ArtifactFilterType,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_RETRY_EXTRA_CODES, temporary_settings
from prefect.states import Cancelling

from arbooth import dvcfiles, graph
from arbooth.data.files import read_fields, write_json
from arbooth.errors import InputError
from arbooth.params import Params
from arbooth.project import Project
from arbooth.registry.gate import CANDIDATE, CHAMPION
from arbooth.registry.ledger import ledger
from arbooth.registry.snapshot import LOCKS, Standing, snapshot
from flows.deploy import PRIORITIES, at_priority, deployments, every, has_remotes, in_parallel, name_of
from flows.personalize import HOST, personalize, publish

ACTIVE = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED)


@dataclass(frozen=True)
class Row:
    """How one subject stands; empty where there is nothing to tell."""

    subject: str
    state: str
    where: str = ""
    since: str = ""
    stage: str = ""
    error: str = ""
    version: str = ""
    champion: str = ""


@dataclass(frozen=True)
class Known:
    """What the server knows of a subject.

    Attributes:
        active: its runs that are at work or wait.
        run, published: its latest run of `personalize` and of `publish`; one that is active, if any is.
        made: the latest of `personalize` that completed.
    """

    deployment: DeploymentResponse
    active: list[FlowRun]
    run: FlowRun | None
    published: FlowRun | None
    made: FlowRun | None


def run(only: str = "*", changed: bool = False, priority: int = 2, dry: bool = False) -> list[str]:
    """Start every subject that matches and is not at work already; lines that say which.

    Args:
        only: a pattern of names, say "cat-*".
        changed: leave out those whose last completed run was made of the same photos, parameters, base and code.
        priority: 1 (first) to 3.
        dry: start none.

    Raises:
        InputError: no server, nothing deployed, or nothing matches.
    """
    if priority not in PRIORITIES:
        raise InputError(f"--priority is {priority}: 1 comes first, then 2 (the default), then 3")

    async def start(client: PrefectClient) -> list[str]:
        known = _matching(await _known(client), only)
        busy = {name for name, one in known.items() if one.run and one.run.state_type in ACTIVE}
        same = {
            name for name, one in known.items() if one.made and one.made.deployment_version == one.deployment.version
        }
        chosen = [name for name in known if name not in busy and not (changed and name in same)]
        if not dry:
            await in_parallel(chosen, lambda name: _start(client, name, known[name].deployment, priority))
        lines = [f"{'would start' if dry else 'started'} {name}" for name in chosen]
        lines += [f"{name} is at work already" for name in sorted(busy)]
        left = len(known) - len(chosen) - len(busy)
        return [*lines, *([f"{left} unchanged"] if left else [])]

    return _asked(start)


async def _start(client: PrefectClient, name: str, deployment: DeploymentResponse, priority: int = 2) -> None:
    queue = at_priority(str(deployment.work_queue_name), priority)
    await client.create_flow_run_from_deployment(deployment.id, name=f"personalize-{name}", work_queue_name=queue)


def cancel(only: str = "*") -> list[str]:
    """End the runs of every subject that matches; lines that say which."""

    async def stop(client: PrefectClient) -> list[str]:
        known = _matching(await _known(client), only)
        active = [run for one in known.values() for run in one.active]
        await in_parallel(active, lambda run: client.set_flow_run_state(run.id, Cancelling(), force=False))
        return [f"cancelled {run.name}" for run in active] or ["nothing was at work"]

    return _asked(stop)


def retry(only: str = "*") -> list[str]:
    """Run again what failed, crashed or was cancelled of every subject that matches; lines that say which.

    It is a new run, with as many attempts as the first had.
    """

    async def again(client: PrefectClient) -> list[str]:
        known = _matching(await _known(client), only)
        lines = []
        for name, one in known.items():
            if one.active:
                continue
            if one.run and one.run.state_type != StateType.COMPLETED:
                await _start(client, name, one.deployment)
                lines.append(f"started {name}")
            elif one.published and one.published.state_type != StateType.COMPLETED:
                old = one.published  # a new run: the old one has used up its attempts
                await client.create_flow_run_from_deployment(
                    old.deployment_id, parameters=old.parameters, name=old.name, tags=old.tags
                )
                lines.append(f"publishes {name}")
        return lines or ["nothing had failed"]

    return _asked(again)


def status(only: str = "*") -> list[Row]:
    """How every subject stands, by the server and the registry, in a number of queries that does not grow with theirs.

    Raises:
        InputError: no server, or nothing is deployed.
    """

    async def rows(client: PrefectClient) -> list[Row]:
        known = _matching(await _known(client), only)
        stages = await _stages(client, [run.id for one in known.values() for run in one.active])
        return [_row(name, one, stages) for name, one in known.items()]

    found = _asked(rows)
    standings = _standings([row.subject for row in found])
    return [_with_registry(row, standings.get(row.subject)) for row in found]


def _standings(subjects: list[str]) -> dict[str, Standing]:
    project = Project()
    try:
        with ledger(project.tracking_uri, existing=True) as client:
            return snapshot(client, subjects)
    except InputError:  # the table is of use without it
        return {}


def _with_registry(row: Row, standing: Standing | None) -> Row:
    if standing is None:
        return row
    version, champion = standing.aliases.get(CANDIDATE, ""), standing.aliases.get(CHAMPION, "")
    return Row(**{**vars(row), "version": version, "champion": champion})


def _row(name: str, one: Known, stages: dict[UUID, str]) -> Row:
    run = one.run
    if run is None:
        return Row(name, "never run")
    # A subject is done when it is published.
    if run.state_type == StateType.COMPLETED and one.published is not None:
        run = one.published if one.published.created >= run.created else run
    state = run.state.name if run.state else "?"
    if run is one.published:
        state = "Completed" if state == "Completed" else f"publishing: {state}"
    elif state == "Completed" and one.published is None:
        state = "made, not published"
    message = (run.state.message or "") if run.state and state != "Completed" else ""
    return Row(
        name,
        state,
        str(run.labels.get(HOST, "")),
        _ago(run.state.timestamp if run.state else run.created),
        stages.get(run.id, ""),
        "" if run.state and run.state.is_scheduled() and run.run_count == 0 else " ".join(message.split())[:160],
    )


def _ago(then: datetime | None) -> str:
    if then is None:
        return ""
    seconds = int((datetime.now(UTC) - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


async def _stages(client: PrefectClient, runs: list[UUID]) -> dict[UUID, str]:
    """Flow run -> what it is at, with the progress that its bar last showed."""
    if not runs:
        return {}
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=runs))
    running = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    query = {"flow_run_filter": chosen, "task_run_filter": running}
    found = [task async for task in every(client.read_task_runs, **query)]
    bars = ArtifactFilter(
        task_run_id=ArtifactFilterTaskRunId(any_=[task.id for task in found]),
        type=ArtifactFilterType(any_=["progress"]),
    )
    progress = {bar.task_run_id: bar.data async for bar in every(client.read_artifacts, artifact_filter=bars)}
    return {
        task.flow_run_id: task.name + (f" {float(str(progress[task.id])):.0f}%" if task.id in progress else "")
        for task in found
        if task.flow_run_id
    }


def collect(only: str = "*") -> list[str]:
    """Take what every subject came to into this checkout: DVC's records from the registry, then their files, then a report.

    Returns:
        Lines that say what came.

    Raises:
        InputError: the registry can't be used, or holds nothing of these subjects; DVC's remote lacks something.
    """
    project = Project()
    params = project.params()
    subjects = [name for name in params.subjects if fnmatch.fnmatchcase(name, only)]
    if not subjects:
        raise InputError(f"no subject is called {only!r} (known: {', '.join(params.subjects) or 'none'})")
    with ledger(project.tracking_uri, existing=True) as client:
        standings = snapshot(client, subjects if len(subjects) == 1 else None)
    locks: dict[str, str] = {}
    missing = []
    for name in subjects:
        candidate = standings.get(name, Standing()).at(CANDIDATE)
        kept = json.loads(candidate.tags.get(LOCKS, "{}")) if candidate else {}
        allowed = project.lock_files(name, params.class_of(name))
        locks |= {where: text for where, text in kept.items() if where in allowed}
        if not kept:
            missing.append(name)
    if not locks:
        raise InputError(f"the registry has nothing of {', '.join(missing[:5])}: see `arbooth fleet status`")
    project.write_stamp()
    _bring(project, params, locks, whole=not missing and len(subjects) == len(params.subjects))
    lines = [f"collected {len(subjects) - len(missing)} of {len(subjects)} subjects"]
    lines += [f"{name} is not published yet" for name in missing]
    if not missing and len(subjects) == len(params.subjects):
        project.repro("summarize", None, say=lambda _: None)
        lines.append(f"report   {project.paths('summarize', None, params)[1]['report'] / 'index.html'}")
    return lines


def _bring(project: Project, params: Params, locks: dict[str, str], whole: bool) -> None:
    """Pull what these records name, and photos, but for what came at an earlier time and was not touched since."""
    record = project.home / ".arbooth" / "collected.json"
    came: dict[str, str] = {}
    with contextlib.suppress(InputError):  # without it everything is looked at
        came = dict(read_fields(record))
    project.write_locks(locks)
    photos = [f"photos/{name}.dvc" for name in params.subjects if whole or graph.lock("subject", name) in locks]
    tracked = [*sorted(locks), *(name for name in photos if (project.root / name).is_file())]
    wanted = [name for name in tracked if came.get(name) is None or project.state_of(name, params) != came[name]]
    files = [*graph.pipelines(name for name in wanted if name in locks), *(name for name in wanted if name not in locks)]
    if files:
        dvcfiles.pull(project, files, has_remotes(project))
    write_json(record, came | {name: project.state_of(name, params) for name in tracked})


async def _known(client: PrefectClient) -> dict[str, Known]:
    """Every deployed subject with its latest runs."""
    names = FlowFilter(name=FlowFilterName(any_=[personalize.name, publish.name]))
    flows = {flow.name: flow.id for flow in await client.read_flows(flow_filter=names)}
    ours = await deployments(client)
    subjects = {d.name: d for d in ours if name_of(flows, d) == personalize.name}
    publishing = [d.id for d in ours if name_of(flows, d) == publish.name]
    if not subjects:
        raise InputError("nothing is deployed: run `arbooth fleet deploy`")
    by_id = {d.id: name for name, d in subjects.items()}
    active: dict[str, list[FlowRun]] = {name: [] for name in subjects}
    newest: dict[str, FlowRun] = {}
    made: dict[str, FlowRun] = {}
    published: dict[str, FlowRun] = {}
    async for run in _runs(client, [*by_id, *publishing], ACTIVE):
        name = by_id.get(run.deployment_id) or run.name.removeprefix("publish-")
        active.setdefault(name, []).append(run)
        (newest if run.deployment_id in by_id else published).setdefault(name, run)
    async for run in _runs(client, [*by_id]):  # back to where every subject has been seen
        newest.setdefault(by_id[run.deployment_id], run)
        if run.state_type == StateType.COMPLETED:
            made.setdefault(by_id[run.deployment_id], run)
        if len(made) == len(subjects):
            break
    async for run in _runs(client, publishing):
        published.setdefault(run.name.removeprefix("publish-"), run)
        if subjects.keys() <= published.keys():
            break
    return {
        name: Known(subjects[name], active[name], newest.get(name), published.get(name), made.get(name))
        for name in sorted(subjects)
    }


def _runs(client: PrefectClient, deployed: list[UUID], states: Iterable[StateType] = ()) -> AsyncIterator[FlowRun]:
    """Runs of deployments, the last to start first."""
    chosen = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=deployed),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*states])) if states else None,
    )
    return every(client.read_flow_runs, flow_run_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_DESC)


def _matching(known: dict[str, Known], only: str) -> dict[str, Known]:
    found = {name: one for name, one in known.items() if fnmatch.fnmatchcase(name, only)}
    if not found:
        raise InputError(f"no subject is called {only!r} (deployed: {', '.join(list(known)[:20])})")
    return found


def _asked(work: Any) -> Any:
    """Ask the server; an address that does not answer is one sentence."""
    import httpx

    if not PREFECT_API_URL.value():
        raise InputError("PREFECT_API_URL is not set: set it to the address of the Prefect server")

    async def ask() -> Any:
        # A server under load answers 500 where its database was slow: asked again.
        with temporary_settings({PREFECT_CLIENT_RETRY_EXTRA_CODES: {500}}):
            async with get_client() as client:
                return await work(client)

    try:
        return asyncio.run(ask())
    except (httpx.HTTPError, OSError) as error:
        raise InputError(
            f"the Prefect server at {PREFECT_API_URL.value()} does not answer ({error}): is it running?"
        ) from None


def table(rows: Iterable[Row]) -> list[str]:
    """Rows as aligned text; columns that nobody fills are left out."""
    rows = list(rows)
    names = [name for name in Row.__dataclass_fields__ if any(getattr(row, name) for row in rows)]
    cells = [list(names), *[[getattr(row, name) for name in names] for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(names))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
