"""Make the embedded base: python -m pretrain STEP [--work DIR] [--modules DIR].

Steps, in order: render, tokenizer, transformer, decoder, encoders, pack. Each resumes after a kill.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from omegaconf import OmegaConf

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


def tokenizer(params, work: Path, modules: Path) -> None:
    from arbooth.model.autoencoder import AutoencoderConfig
    from pretrain.render import load
    from pretrain.train_tokenizer import train

    own = params.tokenizer
    config = AutoencoderConfig(own.bits, own.base, tuple(own.multipliers), own.blocks)
    maps = OmegaConf.to_container(own.maps)
    pictures, _ = load(work / "bank")
    train(pictures, config, maps, work, steps=own.steps, batch=own.batch, rate=own.rate, seed=params.seed)


def transformer(params, work: Path, modules: Path) -> None:
    from arbooth.model.quantizer import SelfCorrection
    from arbooth.model.transformer import TransformerConfig
    from pretrain.pack import load_autoencoder, quantizer_of
    from pretrain.render import load
    from pretrain.train_transformer import encode_pictures, train

    own, pictures_views = params.transformer, load(work / "bank")
    net, quantizer = load_autoencoder(params, work), quantizer_of(params)
    config = TransformerConfig(own.depth, own.width, own.heads, params.tokenizer.bits, own.text_width)
    train(
        encode_pictures(net, pictures_views[0]),
        pictures_views[1],
        quantizer,
        net,
        config,
        work,
        text_layers=own.text_layers,
        steps=own.steps,
        decay=own.decay,
        batch=own.batch,
        rate=own.rate,
        correction=SelfCorrection(own.correction_strength, len(quantizer.schedule)),
        seed=params.seed,
    )


def decoder(params, work: Path, modules: Path) -> None:
    from pretrain.pack import load_autoencoder, quantizer_of
    from pretrain.render import load
    from pretrain.train_tokenizer import refine

    own = params.decoder
    pictures, _ = load(work / "bank")
    net = load_autoencoder(params, work, refined=False)
    refine(net, quantizer_of(params), pictures, work, steps=own.steps, batch=own.batch, rate=own.rate, seed=params.seed)


def encoders(params, work: Path, modules: Path) -> None:
    from pretrain.render import load
    from pretrain.train_encoders import train

    own, pictures_views = params.encoders, load(work / "bank")
    train(*pictures_views, work, steps=own.steps, batch=own.batch, rate=own.rate, seed=params.seed)


def pack(params, work: Path, modules: Path) -> None:
    from pretrain.pack import pack

    pack(params, work)


STEPS = {
    "render": render,
    "tokenizer": tokenizer,
    "transformer": transformer,
    "decoder": decoder,
    "encoders": encoders,
    "pack": pack,
}

if __name__ == "__main__":
    main()
