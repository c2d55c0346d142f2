"""One deployment per subject and class, from params.yaml, on a process work pool.

    python -m flows.deploy [--pool gpu]

Then one worker per GPU: CUDA_VISIBLE_DEVICES=0 prefect worker start --pool gpu --limit 1
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL

from arbooth.errors import InputError, printable
from arbooth.project import Project
from arbooth.settings import has_secret
from flows.personalize import fill_prior, personalize

# Where this package lies: a project holds no code.
CODE = Path(__file__).resolve().parent.parent


def deploy(pool: str = "gpu") -> list[str]:
    """Create or update a deployment for every subject and class; removes none.

    Args:
        pool: a work pool of type process; made if it is not there.

    Returns:
        The deployments' full names, say "personalize/poodle".

    Raises:
        InputError: no server is named, or the pool is of another type.
    """
    project = Project()
    root, params = project.root, project.params()
    if not PREFECT_API_URL.value():
        raise InputError("PREFECT_API_URL is not set: start `prefect server start` and set it to the server's address")
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        kind = client.read_work_pool(pool).type
    if kind != "process":
        raise InputError(f"work pool {pool!r} is of type {kind!r}, not process: name another one with --pool")
    names = [_deploy(personalize, "personalize", s, {"subject": s}, pool, root) for s in params.subjects]
    names += [_deploy(fill_prior, "fill_prior", c, {"class_name": c}, pool, root) for c in params.classes]
    return names


def _deploy(flow: Flow, function: str, name: str, parameters: dict, pool: str, project) -> str:
    source = flow.from_source(source=str(CODE), entrypoint=f"flows/personalize.py:{function}")
    environment = {"ARBOOTH_PROJECT": str(project), "PYTHONPATH": str(CODE)}
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address and not has_secret(address):  # one with credentials stays in the worker's own environment
        environment["MLFLOW_TRACKING_URI"] = address
    source.deploy(
        name=name,
        work_pool_name=pool,
        parameters=parameters,
        job_variables={"working_dir": str(project), "env": environment},
        tags=["arbooth"],
        build=False,
        push=False,
        print_next_steps=False,
        ignore_warnings=True,
    )
    return f"{flow.name}/{name}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description="One deployment per subject and class.")
    parser.add_argument("--pool", default="gpu", help="work pool of type process [gpu]")
    try:
        for name in deploy(parser.parse_args().pool):
            print(f"deployed {name}")
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
