"""The one function behind all four doors.

`arbooth stage NAME KEY`, `dvc repro`, the Prefect flows and `arbooth.run` all end in `run` below; which stages there
are, and what each reads and writes, is the table in `arbooth/graph.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from arbooth.errors import InputError
from arbooth.graph import STAMP_STAGE, TABLE
from arbooth.params import Params
from arbooth.project import Project
from arbooth.stages.job import Job

logger = logging.getLogger(__name__)
# Said before anything heavy is imported or loaded.
DOING = {
    "preprocess": "reading photos",
    "tokenize": "loading the tokenizer, encoding pictures",
    "prior": "loading the base, drawing class samples",
    "finetune": "reading caches, loading the base",
    "generate": "loading the base and the adapter, painting",
    "evaluate": "loading the encoders, measuring",
    "summarize": "writing table and report",
    "publish": "opening the ledger",
}


def run(
    name: str,
    key: str | None = None,
    params: Params | None = None,
    overrides: Sequence[str] = (),
    project: Project | None = None,
) -> dict[str, Path]:
    """Run one stage.

    Args:
        name: of the stage.
        key: the subject or class; None for stages over all.
        params: validated parameters; read from the project's params.yaml if not given.
        overrides: `key=value` pairs, where params.yaml is read.
        project: where; by default the one that the process stands in.

    Returns:
        The paths that it wrote, by name.

    Raises:
        InputError: unknown stage or key, missing or stale inputs, or the stage's own complaints.
    """
    project = project or Project()
    if name == STAMP_STAGE:
        return {name: project.write_stamp()}
    if params is None:
        over_subject = name in TABLE and TABLE[name].over == "subject"
        params = project.params(key if over_subject else None, overrides)
    reads, writes = project.paths(name, key, params)
    for where in reads.values():
        if not where.exists():
            raise InputError(f"{where} is not there: run `dvc repro`, or the stage before {name}")
    logger.info("%s: %s", f"{name} {key}" if key else name, DOING[name])
    module = import_module(f"arbooth.stages.{name}")
    handed = Params.model_construct(**{section: getattr(params, section) for section in TABLE[name].sections})
    with project.alone(f"{name}@{key}" if key else name):
        module.run(Job(handed, key or "", reads, writes, project))
    return writes
