"""Class noun -> cached token maps of the frozen network, with the teacher's logits."""

from __future__ import annotations

from functools import partial

from arbooth.data import caches
from arbooth.data.bases import Base, load_base
from arbooth.method.prior import draw_prior
from arbooth.model.quantizer import Quantizer
from arbooth.model.sampling import Sampling
from arbooth.progress import track
from arbooth.settings import settings, torch_device


def header(params, base: Base, quantizer: Quantizer, class_name: str) -> dict[str, str]:
    """What the prior of a class is made with; fine-tuning refuses another."""
    prompt = params.templates.prior.replace("{class}", params.classes[class_name].noun)
    return caches.origin(
        base.hash, quantizer, prompt=prompt, prior=params.prior.model_dump(), seed=params.seed, compute=params.compute
    )


def run(params, key, reads, writes) -> None:
    here, device = settings(), torch_device()
    base = load_base(params.base, here.project, here.path("weights"))
    quantizer = base.quantizer(params.picture.ratio, params.picture.pixels)
    prompt = params.templates.prior.replace("{class}", params.classes[key].noun)
    features = base.text_encoder(device).encode(prompt).features
    own = params.prior
    prior = draw_prior(
        base.transformer(device, params.compute),
        quantizer,
        features,
        own.samples,
        Sampling(1.0, own.temperature, own.top_k, own.top_p),
        params.seed,
        keep_pairs=own.keep_pairs,
        progress=partial(track, label=f"prior of {key}"),
    )
    caches.write_prior(writes["prior"], prior, header(params, base, quantizer, key))
