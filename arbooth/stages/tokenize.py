"""Pictures -> the tokenizer's raw features, and the features of the training prompt.

Self-correction flips bits anew at each step, so features are kept, not bits.
"""

from __future__ import annotations

import sys

import torch

from arbooth.data import caches
from arbooth.data.bases import load_base
from arbooth.data.pictures import read_pictures
from arbooth.settings import settings, torch_device


def run(params, key, reads, writes) -> None:
    here, device = settings(), torch_device()
    base = load_base(params.base, here.project, here.path("weights"))
    quantizer = base.quantizer(params.picture.ratio, params.picture.pixels)
    noun = params.classes[params.subjects[key].class_name].noun
    prompt = params.templates.subject.replace("{class}", noun)
    pictures = read_pictures(sorted(reads["images"].glob("*.png"))) * 2 - 1
    autoencoder = base.autoencoder(device)
    with torch.inference_mode():
        # One at a time: a photo's features do not depend on the photos beside it.
        features = torch.cat([autoencoder.encode(picture[None].to(device)).cpu() for picture in pictures])
    encoder = base.text_encoder(device)
    unknown = encoder.unknown_words(prompt)
    if unknown:
        print(f"warning: base {base.name!r} does not know the words {', '.join(unknown)}", file=sys.stderr)
    encoded = encoder.encode(prompt)
    encoded.features = encoded.features.cpu()
    header = caches.origin(base.hash, quantizer, prompt=prompt)
    caches.write_subject(writes["tokens"], caches.SubjectTokens(features, encoded), header)
