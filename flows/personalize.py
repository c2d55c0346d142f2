"""Flows: personalise one subject, fill one class prior."""

from __future__ import annotations

import re

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from arbooth.errors import DvcFailed, InputError
from arbooth.graph import SUBJECT_STAGES
from arbooth.project import Project

# Skipping and caching are DVC's alone.
UNCACHED = {"cache_policy": NO_CACHE, "persist_result": False}


def _say(line: str) -> None:
    get_run_logger().info(line)


# How DVC says that its repository or a path is locked, and how a stage does that somebody else is at it.
BUSY = re.compile(
    r"ERROR: (?:Unable to acquire lock\b|.* is busy, it is being blocked by:)|error: [a-z]+(?:@\S+)? is already running as process"
)


def _is_busy(_task, _run, state) -> bool:
    """Whether a stage failed only because somebody else is at it."""
    try:
        state.result()
    except DvcFailed as error:
        return any(BUSY.match(line) for line in error.lines)
    except Exception:
        return False
    return False


@task(
    name="stage",
    task_run_name="{stage}@{key}",
    **UNCACHED,
    retries=2,
    retry_delay_seconds=5,
)
def run_stage(stage: str, key: str) -> None:
    """Bring one stage up to date; DVC skips it when nothing it depends on has changed."""
    Project().repro(stage, key, say=_say)


@task(
    name="prior",
    task_run_name="prior@{class_name}",
    **UNCACHED,
    # Another subject of the class may be drawing it right now: wait for that, minutes with a large base.
    retries=60,
    retry_delay_seconds=15,
    retry_condition_fn=_is_busy,
)
def ensure_prior(class_name: str) -> bool:
    """Draw the class prior if it is not there or stale; says whether it was drawn.

    `dvc repro` would take a write lock even with nothing to do, and refuse beside another subject that
    reads the prior; `dvc status` does not.
    """
    project = Project()
    if project.is_current("prior", class_name):
        return False
    project.repro("prior", class_name, say=_say)
    return True


@task(
    name="publish",
    task_run_name="publish@{subject}",
    **UNCACHED,
    retries=2,
    retry_delay_seconds=5,
)
def publish_subject(subject: str) -> dict:
    """Log and register the subject's files in MLflow; idempotent by content."""
    from arbooth.stages.publish import describe, publish_subject

    project = Project()
    params = project.params(subject)
    reads, _ = project.paths("publish", None, params)
    done = publish_subject(project, params, subject, reads)
    _say(describe(done))
    return {"run_id": done.run_id, "version": done.version, "champion": done.champion}


@flow(name="personalize", flow_run_name="personalize-{subject}", persist_result=False)
def personalize(subject: str) -> dict:
    """Photos of one subject to a registered model.

    Args:
        subject: a name in params.yaml.

    Returns:
        MLflow run id, registered version, and whether it is the champion.

    Raises:
        InputError: no such subject, or broken parameters.
    """
    params = Project().params(subject)
    for stage in SUBJECT_STAGES:
        if stage == "finetune":
            ensure_prior(params.class_of(subject))
        run_stage(stage, subject)
    done = publish_subject(subject)
    create_markdown_artifact(
        key=f"personalized-{subject.replace('_', '-')}",
        markdown=f"**{subject}** is `arbooth-{subject}` version {done['version']}"
        f"{', champion' if done['champion'] else ''} (MLflow run `{done['run_id']}`).",
    )
    return done


@flow(name="fill-prior", flow_run_name="fill-prior-{class_name}", persist_result=False)
def fill_prior(class_name: str) -> bool:
    """Draw the prior of one class ahead of its subjects; says whether it had to be drawn.

    Raises:
        InputError: no such class.
    """
    params = Project().params()
    if class_name not in params.classes:
        raise InputError(f"no class {class_name!r} in params.yaml (known: {', '.join(params.classes)})")
    return ensure_prior(class_name)
