"""Pictures -> the tokenizer's raw features, those of each one's middle, and the features of the training prompts.

Self-correction flips bits anew at each step, so features are kept, not bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from arbooth.data.bases import Base
from arbooth.data.caches import SubjectTokens, write_subject
from arbooth.data.files import read_fields
from arbooth.data.manifest import MANIFEST
from arbooth.data.networks import load_autoencoder, load_text_encoder, quantizer_of
from arbooth.data.pictures import read_pictures
from arbooth.data.tensors import origin
from arbooth.data.views import GROUNDS, views_of
from arbooth.errors import InputError
from arbooth.method.prompts import training_prompts
from arbooth.model.autoencoder import Autoencoder

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.stages.job import Job

logger = logging.getLogger(__name__)
EDGE = 0.08  # of a picture, what its middle lacks on every side


def learned_prompts(params: Params, base: Base, key: str, photos: Sequence[str]) -> tuple[list[str], list[int]]:
    """The prompts that a subject's pictures are learned with, and which of them each picture has.

    Raises:
        InputError: a caption of a photo that is not there.
    """
    subject = params.subjects[key]
    views = views_of(photos, subject.background, base)
    return training_prompts(
        views, params.template(key), params.templates.subject, subject.captions, params.noun(key), key
    )


def header(params: Params, base: Base, key: str, photos: Sequence[str], digest: str) -> dict[str, str]:
    """What a subject's tokens are made with; fine-tuning refuses others."""
    prompts, captions = learned_prompts(params, base, key, photos)
    return origin(base.hash, quantizer_of(base), prompts=prompts, captions=captions, subject=key, photos=digest)


def run(job: Job) -> None:
    base: Base = job.base
    manifest = read_fields(job.reads["images"] / MANIFEST, digest=str, photos=list)
    photos, images = [entry["photo"] for entry in manifest["photos"]], job.reads["images"]
    prompts, captions = learned_prompts(job.params, base, job.key, photos)
    files = [*sorted(images.glob("*.png")), *sorted((images / GROUNDS).glob("*.png"))]
    if len(files) != len(captions):
        raise InputError(f"{images} holds {len(files)} pictures where {len(captions)} are learned: run `dvc repro`")
    pictures = read_pictures(files) * 2 - 1
    autoencoder = load_autoencoder(base, job.device, only="encoder")
    features = _features(autoencoder, pictures, job.device)
    validation = _features(autoencoder, middles(pictures), job.device)
    encoder = load_text_encoder(base, job.device)
    unknown = list(dict.fromkeys(word for prompt in prompts for word in encoder.unknown_words(prompt)))
    if unknown:
        logger.warning("base %r does not know the words %s", base.name, ", ".join(unknown))
    encoded = [encoder.encode(prompt) for prompt in prompts]
    for one in encoded:
        one.features = one.features.cpu()
    tokens = SubjectTokens(features, validation, encoded, captions)
    write_subject(job.writes["tokens"], tokens, header(job.params, base, job.key, photos, manifest["digest"]))


@torch.inference_mode()
def _features(autoencoder: Autoencoder, pictures: Tensor, device: torch.device) -> Tensor:
    """One at a time: a photo's features do not depend on the photos beside it."""
    return torch.cat([autoencoder.encode(picture[None].to(device)).cpu() for picture in pictures])


def middles(pictures: Tensor) -> Tensor:
    """The middle of every picture [P,3,H,W] at the size of the whole: fine-tuning is stopped by it, not trained on it."""
    height, width = pictures.shape[-2:]
    top, left = round(height * EDGE), round(width * EDGE)
    middle = pictures[..., top : height - top, left : width - left]
    return F.interpolate(middle, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
