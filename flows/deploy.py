"""One deployment per subject and class, from params.yaml, on a process work pool.

    python -m flows.deploy [--pool gpu]

A deployment holds no path: a worker runs it in the checkout that it was started for (`arbooth fleet work`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL

from arbooth import dvcfiles
from arbooth.data.bases import Base
from arbooth.data.files import read_json
from arbooth.data.manifest import photo_files, photos_digest
from arbooth.errors import DvcFailed, InputError, printable
from arbooth.params import Params
from arbooth.project import Project
from flows.personalize import fill_prior, personalize, publish
from flows.workspaces import remote_of

TAG = "arbooth"
# A run says that it lives every 30 seconds, Prefect's shortest; a pause of more than two is its end.
HEARTBEAT, SILENCE = 30, 75
# What a worker took runs within so many seconds, imports on a busy machine included.
START = 120
# Names of the pending state, by who says it.
TAKEN = {"Pending", "Submitting", "InfrastructurePending"}
PRIORITIES = (1, 2, 3)
AT_ONCE = 16
PAGE = 200


@dataclass(frozen=True)
class Deployed:
    """What deploying did: full names, say "personalize/poodle", and where the runs work."""

    where: str
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """A deployment as it should be; `version` is a hash over all that its runs' results depend on."""

    flow: Flow
    entrypoint: str
    name: str
    parameters: dict
    queue: str
    version: str
    alone: bool = True

    @property
    def full_name(self) -> str:
        return f"{self.flow.name}/{self.name}"


def queue_of(base: Base, priority: int = 2) -> str:
    """The work queue of a base: a subject lands on a worker that has exactly this network."""
    return f"{base.name}-{base.hash[:8]}-{priority}"


def at_priority(queue: str, priority: int) -> str:
    """The queue of the same base for what is more or less urgent."""
    return f"{queue.rpartition('-')[0]}-{priority}"


def publish_pool(pool: str) -> str:
    """Publishing holds no GPU: its runs have a pool of their own."""
    return f"{pool}-publish"


def deploy(pool: str = "gpu", here: bool = False) -> Deployed:
    """Create or update a deployment for every subject and class, and remove those of subjects that are gone.

    With a git remote and a default DVC remote, runs clone the commit that is checked out now; otherwise, or with
    `here`, they work from the checkout as it stands, changes included, which takes workers on this machine alone.

    Args:
        pool: a work pool of type process; made if it is not there. It belongs to this project alone.

    Raises:
        InputError: no server is named, the pool is of another type, or work is not committed or not pushed.
    """
    if not PREFECT_API_URL.value():
        raise InputError("PREFECT_API_URL is not set: start `prefect server start` and set it to the server's address")
    project = Project()
    params = project.params()
    commit = None if here or not has_remotes(project) else pushed_commit(project, params)
    where = f"commit {commit[:12]}" if commit else f"{project.root} as it stands"
    return asyncio.run(_deploy(project, params, pool, commit, where))


async def _deploy(project: Project, params: Params, pool: str, commit: str | None, where: str) -> Deployed:
    base = project.base(params)
    async with get_client() as client:
        await make_pools(client, pool)
        await ensure_queues(client, pool, [base])
        flows = {
            flow.name: await client.create_flow_from_name(flow.name) for flow in (personalize, fill_prior, publish)
        }
        there = {f"{name_of(flows, d)}/{d.name}": d for d in await deployments(client)}
        wanted = wanted_deployments(project, params, base, commit)
        stale = [one for one in wanted if not _is_current(there.get(one.full_name), one, pool)]
        await in_parallel(stale, lambda one: _create(client, flows[one.flow.name], one, pool))
        names = {one.full_name for one in wanted}
        gone = [d for name, d in there.items() if name not in names and d.work_pool_name in (pool, publish_pool(pool))]
        await in_parallel(gone, lambda one: client.delete_deployment(one.id))
        for automation in automations():
            await _ensure_automation(client, automation)
        return Deployed(
            where,
            [one.full_name for one in stale],
            [one.full_name for one in wanted if one not in stale],
            [f"{name_of(flows, d)}/{d.name}" for d in gone],
        )


def wanted_deployments(project: Project, params: Params, base: Base, commit: str | None) -> list[Wanted]:
    """One for each subject and class, and one that publishes them all."""
    common = _hash({
        "params": params.model_dump(mode="json", by_alias=True, exclude={"subjects", "classes"}),
        "stamp": read_json(project.write_stamp()),
    })  # fmt: skip
    found = []
    for name in params.classes:
        own = {"common": common, "noun": params.classes[name].noun}
        found.append(Wanted(fill_prior, "flows.personalize.fill_prior", name, {"class_name": name, "commit": commit},
                            queue_of(base), _hash(own)))  # fmt: skip
    for name, subject in params.subjects.items():
        own = {
            "common": common,
            "subject": subject.model_dump(mode="json"),
            "noun": params.noun(name),
            "photos": _photos(project, name),
        }
        found.append(Wanted(personalize, "flows.personalize.personalize", name, {"subject": name, "commit": commit},
                            queue_of(base), _hash(own)))  # fmt: skip
    found.append(Wanted(publish, "flows.personalize.publish", "fleet", {}, "default", "1", alone=False))
    return found


def _photos(project: Project, subject: str) -> str:
    folder = project.photos(subject)
    if folder.is_dir():
        return photos_digest(photo_files(folder))
    tracked = folder.with_suffix(".dvc")
    return tracked.read_text(encoding="utf-8") if tracked.is_file() else ""


def _hash(values: dict) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _is_current(there: DeploymentResponse | None, one: Wanted, pool: str) -> bool:
    return (
        there is not None
        and there.version == one.version
        and there.parameters == one.parameters
        and there.work_queue_name == one.queue
        and there.work_pool_name == _pool_of(one, pool)
    )


def _pool_of(one: Wanted, pool: str) -> str:
    return publish_pool(pool) if one.flow is publish else pool


async def _create(client: PrefectClient, flow_id: Any, one: Wanted, pool: str) -> None:
    await client.create_deployment(
        flow_id=flow_id,
        name=one.name,
        version=one.version,
        entrypoint=one.entrypoint,
        parameters=one.parameters,
        parameter_openapi_schema=one.flow.parameters.model_dump(),
        enforce_parameter_schema=True,
        work_pool_name=_pool_of(one, pool),
        work_queue_name=one.queue,
        tags=[TAG, *([f"subject:{one.name}"] if one.flow is personalize else [])],
        # A subject that is triggered twice runs once: the second waits, and finds everything done.
        concurrency_limit=1 if one.alone else None,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
        if one.alone
        else None,
    )


async def make_pools(client: PrefectClient, pool: str) -> None:
    for name in (pool, publish_pool(pool)):
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        kind = (await client.read_work_pool(name)).type
        if kind != "process":
            raise InputError(f"work pool {name!r} is of type {kind!r}, not process: name another one with --pool")


async def ensure_queues(client: PrefectClient, pool: str, bases: Iterable[Base]) -> list[str]:
    """The queues of bases, most urgent first; made where they are missing."""
    names = []
    for base in bases:
        for priority in PRIORITIES:
            names.append(queue_of(base, priority))
            with contextlib.suppress(ObjectAlreadyExists):
                await client.create_work_queue(names[-1], priority=priority, work_pool_name=pool)
    return names


async def every(read: Callable[..., Awaitable[list[Any]]], **query: Any) -> AsyncIterator[Any]:
    """All that a query finds, in order; the server gives 200 at a time."""
    offset, page = 0, [None] * PAGE
    while len(page) == PAGE:
        page = await read(**query, limit=PAGE, offset=offset)
        offset += PAGE
        for one in page:
            yield one


async def deployments(client: PrefectClient) -> list[DeploymentResponse]:
    """Every deployment that this module made."""
    chosen = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    return [one async for one in every(client.read_deployments, deployment_filter=chosen)]


def name_of(flows: dict[str, Any], deployment: DeploymentResponse) -> str:
    return next((name for name, flow_id in flows.items() if flow_id == deployment.flow_id), "?")


async def in_parallel(items: Iterable[Any], work: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    """Requests of a number of items, several at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Any:
        async with gate:
            return await work(item)

    return await asyncio.gather(*map(one, items))


# What nobody has to be awake for: they live in the server and need neither a worker nor a flow.

# Each run of our deployments by itself.
OURS: dict[str, Any] = {
    "match": {"prefect.resource.id": "prefect.flow-run.*"},
    "match_related": {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
    "for_each": {"prefect.resource.id"},
}


def automations() -> list[AutomationCore]:
    """A run that never starts or falls silent has crashed; one that crashed or failed runs again, until its flow gives up."""
    ended = EventTrigger(
        **OURS,
        expect={f"prefect.flow-run.{state}" for state in ("Crashed", "Failed", "TimedOut")},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
    again = ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message="tried again")
    return [
        _crash("a run that a worker took and never started has crashed", TAKEN, START),
        _crash("a silent run has crashed", {"Running", "heartbeat"}, SILENCE),
        AutomationCore(name=f"{TAG}: a run that crashed or failed is tried again", trigger=ended, actions=[again]),
    ]


def _crash(name: str, after: set[str], seconds: int) -> AutomationCore:
    """After one of these events a run must be heard of again, by any other, within some seconds."""
    silent = EventTrigger(
        **OURS,
        after={f"prefect.flow-run.{event}" for event in after},
        expect={"prefect.flow-run.*"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    crashed = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=f"silent for {seconds} seconds")
    return AutomationCore(name=f"{TAG}: {name}", trigger=silent, actions=[crashed])


async def _ensure_automation(client: PrefectClient, wanted: AutomationCore) -> None:
    there = await client.read_automations_by_name(wanted.name)
    if not there:
        await client.create_automation(wanted)
        return
    same = [one for one in there if AutomationCore(**one.model_dump()).model_dump() == wanted.model_dump()]
    if not same:
        await client.update_automation(there[0].id, wanted)


# Whether other machines can have what a run needs.


def has_remotes(project: Project) -> bool:
    """Whether the project has a git remote and a default remote of DVC: then machines need no shared folder."""
    lines: list[str] = []
    try:
        if not remote_of(project):
            return False
        project.dvc("config", "core.remote", say=lines.append)
    except (InputError, DvcFailed):
        return False
    return bool(lines)


def pushed_commit(project: Project, params: Params) -> str:
    """The commit that is checked out.

    Raises:
        InputError: something is not committed, or not where machines take it from.
    """
    commit, clean = project.commit()
    if not clean:
        changed = project.git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
        first = changed.splitlines()[0][2:].strip()
        raise InputError(
            f"{first} is changed but not committed, and workers clone a commit: commit it, or deploy --here"
        )
    needed = [f"photos/{name}.dvc" for name in params.subjects]
    tracked = set(project.git("ls-files", "--", "photos").splitlines())
    untracked = [path for path in needed if path not in tracked]
    if untracked:
        raise InputError(
            f"git does not know {untracked[0]}, which tells workers the photos: `dvc add`, commit and push it"
        )
    if not project.git("branch", "-r", "--contains", commit):
        raise InputError(f"commit {commit[:12]} is not at the remote {remote_of(project)!r}: run `git push`")
    missing = dvcfiles.missing(project, needed)
    if missing:
        raise InputError(f"photos are not at DVC's remote ({missing[0]}): run `dvc push`")
    return commit


def lines_of(done: Deployed) -> list[str]:
    """What was done, for people."""
    words = ((f"deployed {name}" for name in done.changed), (f"removed {name}" for name in done.removed))
    lines = [line for part in words for line in part]
    return [*lines, f"{len(done.unchanged)} unchanged; runs work from {done.where}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description="One deployment per subject and class.")
    parser.add_argument("--pool", default="gpu", help="work pool of type process [gpu]")
    parser.add_argument("--here", action="store_true", help="work from this checkout as it stands, remotes or not")
    given = parser.parse_args()
    try:
        print("\n".join(lines_of(deploy(given.pool, given.here))))
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
