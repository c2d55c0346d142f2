"""Flows: personalise one subject, fill one class prior."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from arbooth.params import load_params
from arbooth.settings import settings
from arbooth.stages import TABLE

SUBJECT_STAGES = [name for name, stage in TABLE.items() if stage.over == "subject"]

# Skipping and caching are DVC's alone.
UNCACHED = {"cache_policy": NO_CACHE, "persist_result": False}


class StageFailed(RuntimeError):
    """A stage ended with an error; its last lines are in the message."""


def dvc(*arguments: str, quiet: bool = False) -> int:
    """Run DVC in the project, stream its lines to the run's log, and end its whole process group with us.

    Raises:
        StageFailed: it exited with an error (unless `quiet`, when the exit code is the answer).
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    # The stages' commands are `arbooth ...` of this same environment, whoever started the worker.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    process = subprocess.Popen(
        command,
        cwd=settings().project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if not quiet and lines[-1]:
                get_run_logger().info(lines[-1])
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if code and not quiet:
        raise StageFailed(f"dvc {' '.join(arguments)} exited with {code}: " + " | ".join(lines[-5:]))
    return code


def _is_busy(_task, _run, state) -> bool:
    """Whether a stage failed only because somebody else is at it: DVC's lock, or the stage's own."""
    try:
        state.result()
    except StageFailed as error:
        return any(word in str(error) for word in ("lock", "busy", "already running"))
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
    dvc("repro", "--single-item", f"{stage}@{key}")


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
    target = f"prior@{class_name}"
    if dvc("status", "-q", target, quiet=True) == 0:
        return False
    dvc("repro", "--single-item", target)
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
    from arbooth.stages import paths
    from arbooth.stages.publish import describe, publish_subject

    params = load_params(settings().project / "params.yaml", subject)
    reads, _ = paths(TABLE["publish"], None, params)
    done = publish_subject(params, subject, reads)
    get_run_logger().info(describe(done))
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
    params = load_params(settings().project / "params.yaml", subject)
    for stage in SUBJECT_STAGES:
        if stage == "finetune":
            ensure_prior(params.subjects[subject].class_name)
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
    from arbooth.errors import InputError

    params = load_params(settings().project / "params.yaml")
    if class_name not in params.classes:
        raise InputError(f"no class {class_name!r} in params.yaml (known: {', '.join(params.classes)})")
    return ensure_prior(class_name)
