"""Make the embedded base: python -m pretrain STEP [--work DIR] [--modules DIR].

Steps, in order: render, photos, tokenizer, transformer, encoders, pack, check. Each resumes after a kill.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from omegaconf import OmegaConf

from pretrain.ledger import logged

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=sorted(STEPS))
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder of pictures and resume files")
    parser.add_argument("--modules", type=Path, default=HERE / "node_modules", help="where npm put the art")
    given = parser.parse_args()
    STEPS[given.step](OmegaConf.load(HERE / "params.yaml"), given.work, given.modules)


def render(params, work: Path, modules: Path) -> None:
    from pretrain.render import render

    render(modules, work / "bank", params.render.pictures, params.pixels, params.seed, os.cpu_count() or 1)


def photos(params, work: Path, modules: Path) -> None:
    from pretrain.render import crop_photos

    crop_photos(work / "photos", work / "bank", params.render.photos, params.pixels, params.seed)


def tokenizer(params, work: Path, modules: Path) -> None:
    import torch

    from pretrain.pack import new_autoencoder, quantizer_of
    from pretrain.render import load, load_photos
    from pretrain.train_tokenizer import train

    torch.manual_seed(params.seed)
    own, (pictures, _) = params.tokenizer, load(work / "bank")
    with logged(work / "tokenizer.pt", own, work / "tokenizer.png", work / "photos.png") as ledger:
        train(
            pictures,
            load_photos(work / "bank"),
            new_autoencoder(params),
            quantizer_of(params),
            work,
            steps=own.steps,
            decay=own.decay,
            batch=own.batch,
            rate=own.rate,
            photo_share=own.photo_share,
            seed=params.seed,
            ledger=ledger,
        )


def transformer(params, work: Path, modules: Path) -> None:
    import numpy as np

    from arbooth.data.files import sha256
    from arbooth.model.quantizer import SelfCorrection
    from pretrain.art import CLASSES
    from pretrain.pack import load_autoencoder, quantizer_of, transformer_config
    from pretrain.render import load
    from pretrain.train_transformer import encode_pictures, new_networks, train

    own, (pictures, views) = params.transformer, load(work / "bank")
    net, quantizer = load_autoencoder(params, work), quantizer_of(params)
    known = list(CLASSES)[: own.classes]
    chosen = np.array([i for i, view in enumerate(views) if view.drawing.noun in known])
    key = f"{sha256(work / 'tokenizer.pt')} {known}"
    features = encode_pictures(net, pictures, chosen, work / "features.pt", key)
    with logged(work / "transformer.pt", own, work / "transformer.png") as ledger:
        train(
            features,
            [views[i] for i in chosen],
            quantizer,
            net,
            new_networks(transformer_config(params), own.text_layers, params.seed),
            work,
            steps=own.steps,
            decay=own.decay,
            batch=own.batch,
            rate=own.rate,
            coarse_share=own.coarse_share,
            correction=SelfCorrection(own.correction_strength, len(quantizer.schedule)),
            seed=params.seed,
            ledger=ledger,
        )


def encoders(params, work: Path, modules: Path) -> None:
    from pretrain.render import load
    from pretrain.train_encoders import train

    own, (pictures, views) = params.encoders, load(work / "bank")
    with logged(work / "encoders.pt", own) as ledger:
        train(
            pictures,
            views,
            work,
            steps=own.steps,
            decay=own.decay,
            batch=own.batch,
            rate=own.rate,
            seed=params.seed,
            ledger=ledger,
        )


def pack(params, work: Path, modules: Path) -> None:
    from pretrain.pack import pack

    pack(params, work, modules)


def check(params, work: Path, modules: Path) -> None:
    from pretrain.check import check

    check(work, params.transformer.classes, params.check.pictures, params.seed)


STEPS = {
    "render": render,
    "photos": photos,
    "tokenizer": tokenizer,
    "transformer": transformer,
    "encoders": encoders,
    "pack": pack,
    "check": check,
}

if __name__ == "__main__":
    main()
