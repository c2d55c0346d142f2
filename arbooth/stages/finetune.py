"""Token and prior caches -> adapter, curves and sample pictures."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.closure import digest
from arbooth.data.adapters import Adapter, write_adapter
from arbooth.data.bases import Base
from arbooth.data.caches import SubjectTokens, read_subject
from arbooth.data.files import sha256, whole_folder
from arbooth.data.manifest import photo_files, photos_digest
from arbooth.data.networks import load_transformer, quantizer_of
from arbooth.data.priors import read_prior
from arbooth.data.resume import ResumeFile
from arbooth.errors import InputError
from arbooth.method.fit import FitSettings, fit
from arbooth.method.prior import ClassPrior
from arbooth.method.tuning import KINDS
from arbooth.model.transformer import Transformer
from arbooth.progress import track
from arbooth.stages import prior as prior_stage
from arbooth.stages import tokenize as tokenize_stage
from arbooth.stages.samples import Samples

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.stages.job import Job

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Everything that a run of `fit` reads."""

    base: Base
    tokens: SubjectTokens
    prior: ClassPrior | None
    recipe: FitSettings


def read_inputs(params: Params, base: Base, key: str, reads: dict[str, Path]) -> Inputs:
    """Raises InputError: a cache is missing, or was made with something else."""
    photos = photo_files(reads["photos"])
    names = [photo.name for photo in photos]
    expected = tokenize_stage.header(params, base, key, names, photos_digest(photos))
    tokens = read_subject(reads["tokens"], expected, quantizer_of(base))
    recipe, prior = FitSettings(**params.recipe), None
    if recipe.prior != "none":
        prior = read_prior(reads["prior"], prior_stage.header(params, base, params.class_of(key)), quantizer_of(base))
    return Inputs(base, tokens, prior, recipe)


def run(job: Job) -> None:
    params, key, machine = job.params, job.key, job.project.settings
    given = read_inputs(params, job.base, key, job.reads)
    base, recipe = given.base, given.recipe
    if machine.attention == "flex" and job.device.type == "cpu":
        raise InputError("FlexAttention does not train on the CPU: set ARBOOTH_ATTENTION to scales")
    resume_file = job.project.resume_file(key)
    net = _network(base, job)
    samples = Samples(net, base, params, key)
    with ResumeFile(resume_file, _run_key(job, given), machine.checkpoint_seconds) as resume:
        result = fit(
            net,
            quantizer_of(base),
            given.tokens.features,
            given.tokens.prompt_of_each(),
            given.prior,
            recipe,
            resume=resume,
            progress=partial(track, label=f"finetune {key}"),
            attention=machine.attention,
            watch=samples,
            validation=given.tokens.validation,
        )
    if result.stopped:
        logger.info("finetune %s: ended after %d steps: %s", key, len(result.history), result.stopped)
    parameters = KINDS[recipe.kind].saved(result.parameters, params.compute)
    # Serving paints the picture's shape, and computes in the type, that the subject was trained with.
    made = {"method": params.finetune.method, "compute": params.compute, "picture": params.picture.model_dump()}
    settings = {**made, **vars(recipe), "steps_made": len(result.history)}
    adapter = Adapter(result.identifier.cpu(), parameters, base.hash, key, params.noun(key), settings, recipe.kind)
    write_adapter(job.writes["adapter"], adapter)
    write_curves(job.writes["curves"], result.history)
    samples.write(job.writes["samples"])
    resume.finish()


def _network(base: Base, job: Job) -> Transformer:
    net = load_transformer(base, job.device, job.params.compute)
    if job.project.settings.compile:
        net.compile_blocks()
    return net


def _run_key(job: Job, given: Inputs) -> str:
    """What a run computes, from what and with which code: one that was stopped resumes in no other."""
    identity = [
        json.dumps({**vars(given.recipe), "compute": job.params.compute}, sort_keys=True),
        str(job.params.finetune.sample_every),
        given.base.hash,
        sha256(job.reads["tokens"]),
        sha256(job.reads["prior"]),
        digest(__name__),
        # Kernels round in their own ways: a run that resumes with others would end with other bits.
        f"{job.project.settings.attention} {job.project.settings.compile}",
    ]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """One CSV a curve (loss, subject, prior, scale_1, ...) with columns step and value, as DVC plots them."""
    names = dict.fromkeys(name for row in history for name in row if name != "step")
    with whole_folder(folder) as part:
        for name in names:
            with (part / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["step", "value"])
                writer.writerows([row["step"], f"{row[name]:.6g}"] for row in history if name in row)
