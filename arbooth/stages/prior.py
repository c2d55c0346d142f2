"""Class noun -> cached token maps of the frozen network, with the teacher's logits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from arbooth.data.bases import Base
from arbooth.data.networks import load_text_encoder, load_transformer, quantizer_of
from arbooth.data.priors import write_prior
from arbooth.data.tensors import origin
from arbooth.method.prior import draw_prior
from arbooth.method.prompts import with_class
from arbooth.model.sampling import Sampling
from arbooth.progress import track

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.stages.job import Job


def header(params: Params, base: Base, class_name: str) -> dict[str, str]:
    """What the prior of a class is made with; fine-tuning refuses another."""
    prompt = with_class(params.templates.prior, params.classes[class_name].noun)
    prior = params.prior.model_dump()
    return origin(base.hash, quantizer_of(base), prompt=prompt, prior=prior, seed=params.seed, compute=params.compute)


def run(job: Job) -> None:
    params, base = job.params, job.base
    settings, prompt = params.prior, with_class(params.templates.prior, params.classes[job.key].noun)
    prior = draw_prior(
        load_transformer(base, job.device, params.compute),
        quantizer_of(base),
        load_text_encoder(base, job.device).encode(prompt).features,
        settings.samples,
        Sampling(1.0, settings.temperature, settings.top_k, settings.top_p),
        params.seed,
        keep_pairs=settings.keep_pairs,
        progress=partial(track, label=f"prior of {job.key}"),
    )
    write_prior(job.writes["prior"], prior, header(params, base, job.key))
