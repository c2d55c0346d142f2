"""Everything -> MLflow runs and registered versions. Idempotent, so it may run at every `dvc repro`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from arbooth.progress import track
from arbooth.registry.publish import Files, Published, publish

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.project import Paths, Project
    from arbooth.stages.job import Job

logger = logging.getLogger(__name__)


def publish_subject(project: Project, params: Params, subject: str, reads: Paths) -> Published:
    """Publish one subject's files.

    Args:
        params: with the subject's own overrides.
    """
    files = Files(
        adapter=reads["adapters"] / f"{subject}.safetensors",
        curves=reads["curves"] / subject,
        sheet=reads["sheets"] / f"{subject}.png",
        metrics=reads["metrics"] / f"{subject}.json",
        prompts=reads["prompts"] / f"{subject}.csv",
    )
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
    return publish(
        subject,
        params.noun(subject),
        files,
        project.base(params),
        record,
        params.sampling,
        params.publish,
        project.tracking_uri,
    )


def run(job: Job) -> None:
    if job.params.evaluate.encoders == "embedded" and job.params.base != "embedded":
        logger.warning(
            "base %r was scored by the embedded encoders, which know drawings only: set evaluate.encoders to corrected",
            job.params.base,
        )
    for subject in track(job.params.subjects, "publish", len(job.params.subjects)):
        done = publish_subject(job.project, job.params.of_subject(subject), subject, job.reads)
        logger.info(describe(done))


def describe(done: Published) -> str:
    """One line for people."""
    what = "registered" if done.new else "unchanged"
    line = f"{done.subject}: arbooth-{done.subject} version {done.version} {what}, candidate"
    if done.champion:
        return f"{line} and champion"
    return f"{line}; not champion: {'; '.join(done.gate)}"
