"""Make the embedded base: python -m pretrain STEP [--work DIR] [--modules DIR] [--go-on].

Steps, in order: render, photos, tokenizer, transformer, encoders, pack, check. Training steps resume after a kill.
The step `unpack` puts the packed base into the work folder, to train it further with --go-on.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from arbooth.errors import InputError
from pretrain.refusals import refusals

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Given:
    """What every step is handed: the parameters, the folder of its files, npm's folder, and `--go-on`."""

    params: DictConfig
    work: Path
    modules: Path
    go_on: bool

    @property
    def bank(self) -> Path:
        return self.work / "bank"

    def needs(self, *names: str) -> list[Path]:
        """Paths of files of earlier steps.

        Raises:
            InputError: one is not there.
        """
        for name in names:
            if not (self.work / name).exists():
                raise InputError(f"{self.work / name} is not there: run the steps before this one first")
        return [self.work / name for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=[*STEPS, "unpack"])
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder of pictures and resume files")
    parser.add_argument("--modules", type=Path, default=HERE / "node_modules", help="where npm put the art")
    parser.add_argument("--go-on", action="store_true", help="train on with other parameters or pictures")
    given = parser.parse_args()
    step = unpack if given.step == "unpack" else STEPS[given.step]
    with refusals():
        step(Given(OmegaConf.load(HERE / "params.yaml"), given.work, given.modules, given.go_on))


def render(given: Given) -> None:
    from pretrain.render import BANKS, render

    params = given.params
    for bank in BANKS:
        folder, count = given.bank / bank, params.render[bank]
        render(given.modules, folder, bank, count, params.pixels, params.seed, os.cpu_count() or 1)


def photos(given: Given) -> None:
    from pretrain.render import crop_photos

    crop_photos(given.work / "photos", given.bank, given.params.render.photos, given.params.pixels, given.params.seed)


def tokenizer(given: Given) -> None:
    import torch

    from pretrain.ledger import key_of, logged
    from pretrain.pack import new_autoencoder, quantizer_of
    from pretrain.perception import Perception
    from pretrain.render import load, load_photos
    from pretrain.train_tokenizer import train

    params, own, work = given.params, given.params.tokenizer, given.work
    key = key_of(own, *given.needs("bank/varied/pictures.npy", "bank/photos.npy"))
    perception = Perception(params.pixels)
    torch.manual_seed(params.seed)
    with logged(work / "tokenizer.pt", own, key, given.go_on, work / "tokenizer.png", work / "photos.png") as ledger:
        train(
            load(given.bank / "varied")[0],
            load_photos(given.bank),
            new_autoencoder(params),
            quantizer_of(params),
            perception,
            work,
            steps=own.steps,
            decay=own.decay,
            batch=own.batch,
            rate=own.rate,
            photo_share=own.photo_share,
            seed=params.seed,
            ledger=ledger,
        )


def transformer(given: Given) -> None:
    from arbooth.model.quantizer import SelfCorrection
    from pretrain.ledger import key_of, logged
    from pretrain.pack import load_autoencoder, quantizer_of, transformer_config
    from pretrain.render import load
    from pretrain.train_transformer import encode_pictures, new_networks, train
    from pretrain.words import word_list

    params, own, work = given.params, given.params.transformer, given.work
    inputs = given.needs("tokenizer.pt", "bank/studio/pictures.npy", "bank/studio/views.json")
    key = key_of(own, *inputs, words=word_list())
    pictures, views = load(given.bank / "studio")
    net, quantizer = load_autoencoder(params, work), quantizer_of(params)
    with logged(work / "transformer.pt", own, key, given.go_on, work / "transformer.png") as ledger:
        train(
            encode_pictures(net, pictures, work / "features.pt", key_of(params.tokenizer, *inputs)),
            views,
            quantizer,
            net,
            new_networks(transformer_config(params), own.text_layers, params.seed),
            work,
            steps=own.steps,
            decay=own.decay,
            batch=own.batch,
            rate=own.rate,
            show_every=own.show_every,
            ends=dict(own.ends),
            correction=SelfCorrection(own.correction_strength, len(quantizer.schedule)),
            seed=params.seed,
            ledger=ledger,
        )


def encoders(given: Given) -> None:
    from pretrain.ledger import key_of, logged
    from pretrain.render import load
    from pretrain.train_encoders import train
    from pretrain.words import word_list

    params, own, work = given.params, given.params.encoders, given.work
    inputs = [f"bank/{bank}/{file}" for bank in ("varied", "others") for file in ("pictures.npy", "views.json")]
    key = key_of(own, *given.needs(*inputs), words=word_list())
    with logged(work / "encoders.pt", own, key, given.go_on) as ledger:
        train(
            *load(given.bank / "varied"),
            *load(given.bank / "others"),
            work,
            steps=own.steps,
            decay=own.decay,
            batch=own.batch,
            rate=own.rate,
            seed=params.seed,
            ledger=ledger,
        )


def pack(given: Given) -> None:
    from pretrain.pack import pack

    given.needs("tokenizer.pt", "transformer.pt", "encoders.pt")
    pack(given.params, given.work, given.modules)


def unpack(given: Given) -> None:
    from pretrain.unpack import unpack

    unpack(given.params, given.work)


def check(given: Given) -> None:
    from pretrain.check import check

    check(given.work, given.params.check.pictures, given.params.seed, given.modules)


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
