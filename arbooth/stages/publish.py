"""Everything -> MLflow runs and registered versions. Idempotent, so it may run at every `dvc repro`."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from arbooth.data.bases import remembered_hash
from arbooth.data.files import EMBEDDED
from arbooth.progress import track
from arbooth.registry.publish import Entry, Files, Origin, Published, publish

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.project import Project
    from arbooth.stages.job import Job

logger = logging.getLogger(__name__)


def entry_of(project: Project, params: Params, subject: str) -> Entry:
    """What there is to publish of a subject.

    Args:
        params: with the subject's own overrides.
    """
    paths = {name: project.paths(stage, subject, params)[1] for name, stage in MADE.items()}
    declared = params.subjects[subject].model_dump(by_alias=True, exclude={"overrides", "crops"})
    record = {
        "base": params.base,
        "seed": params.seed,
        "compute": params.compute,
        "subject": declared,
        "method": params.methods[params.finetune.method].model_dump(),
        **{
            name: getattr(params, name).model_dump()
            for name in ("picture", "templates", "prior", "finetune", "generate", "evaluate")
        },
    }
    commit, clean = project.commit()
    locks = project.read_locks(subject, params.class_of(subject))
    return Entry(
        subject,
        params.noun(subject),
        Files(**{name: written[name] for name, written in paths.items()}),
        project.base(params),
        record,
        params.sampling,
        _encoders(params),
        params.publish,
        Origin(commit, clean, locks, os.environ.get("DVC_EXP_NAME", "")),
    )


# What is published, and the stage that writes it.
MADE = {
    "images": "preprocess",
    "adapter": "finetune",
    "curves": "finetune",
    "samples": "finetune",
    "sheet": "generate",
    "metrics": "evaluate",
    "prompts": "evaluate",
}


def _encoders(params: Params) -> str:
    """Which encoders measured: their name, and what the embedded ones are, since each base has its own."""
    name = params.evaluate.encoders
    return f"{name} {remembered_hash(EMBEDDED / 'encoders.safetensors')[:12]}" if name == "embedded" else name


def run(job: Job) -> None:
    if job.params.evaluate.encoders == "embedded" and job.params.base != "embedded":
        logger.warning(
            "base %r was scored by the embedded encoders, which know drawings only: set evaluate.encoders to corrected",
            job.params.base,
        )
    entries = [entry_of(job.project, job.params.of_subject(subject), subject) for subject in job.params.subjects]
    for done in track(publish(entries, job.project.tracking_uri, job.project.ledger_files), "publish", len(entries)):
        logger.info(describe(done))


def publish_subject(project: Project, subject: str) -> Published:
    """Publish one subject of a project, beside which others may be missing.

    Raises:
        InputError: it is not evaluated yet, or the ledger can't be used.
    """
    entry = entry_of(project, project.params(subject), subject)
    return next(publish([entry], project.tracking_uri, project.ledger_files))


def describe(done: Published) -> str:
    """One line for people."""
    what = "registered" if done.new else "unchanged"
    line = f"{done.subject}: arbooth-{done.subject} version {done.version} {what}, candidate"
    if done.champion:
        return f"{line} and champion"
    return f"{line}; not champion: {'; '.join(done.gate)}"
