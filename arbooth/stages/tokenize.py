"""Pictures -> the tokenizer's raw features, and the features of the training prompt.

Self-correction flips bits anew at each step, so features are kept, not bits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from arbooth.data.bases import Base
from arbooth.data.caches import SubjectTokens, write_subject
from arbooth.data.files import read_fields
from arbooth.data.manifest import MANIFEST
from arbooth.data.networks import load_autoencoder, load_text_encoder, quantizer_of
from arbooth.data.pictures import read_pictures
from arbooth.data.tensors import origin
from arbooth.method.prompts import with_class

if TYPE_CHECKING:
    from arbooth.stages.job import Job

logger = logging.getLogger(__name__)


def run(job: Job) -> None:
    base: Base = job.base
    prompt = with_class(job.params.templates.subject, job.params.noun(job.key))
    pictures = read_pictures(sorted(job.reads["images"].glob("*.png"))) * 2 - 1
    autoencoder = load_autoencoder(base, job.device, only="encoder")
    with torch.inference_mode():
        # One at a time: a photo's features do not depend on the photos beside it.
        features = torch.cat([autoencoder.encode(picture[None].to(job.device)).cpu() for picture in pictures])
    encoder = load_text_encoder(base, job.device)
    unknown = encoder.unknown_words(prompt)
    if unknown:
        logger.warning("base %r does not know the words %s", base.name, ", ".join(unknown))
    encoded = encoder.encode(prompt)
    encoded.features = encoded.features.cpu()
    photos = read_fields(job.reads["images"] / MANIFEST, digest=str)["digest"]
    header = origin(base.hash, quantizer_of(base), prompt=prompt, subject=job.key, photos=photos)
    write_subject(job.writes["tokens"], SubjectTokens(features, encoded), header)
