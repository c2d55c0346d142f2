"""Does the packed base paint what it is told? Fresh prompts, answered by the judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from arbooth.data.bases import load_base
from arbooth.data.files import write_json
from arbooth.data.networks import load_autoencoder, quantizer_of
from arbooth.metrics.judge import Judge, load_judge
from arbooth.painting.painter import Painter
from arbooth.params import load_params
from arbooth.progress import track
from arbooth.recipes import params_of
from pretrain.art import ACCESSORIES, CLASSES, Art
from pretrain.render import photographs
from pretrain.scenes import SCENES
from pretrain.train_tokenizer import evaluate, to_pixels
from pretrain.world import COLOURS, PLACES, SIZES, STUDIO, View, World, article

UNSEEN = 128  # pictures of the world that the tokenizer is measured on


def check(out: Path, pictures: int, seed: int, modules: Path | None = None) -> dict[str, float]:
    """Paint `pictures` of random views, write a sheet and what is right to `out/check.*`, print it.

    All prompts name class and scene, many a colour or an accessory, some a size or a place, in a wording that no
    training caption has. Where `modules` holds the art, true pictures of the same views are judged too, to tell the
    judge's mistakes from the painter's. The tokenizer is measured as well: in dB, on pictures of the world that
    nothing was trained on and on photographs in `out/unseen` (where there are any).
    """
    sampling = load_params("params.yaml", text=params_of("embedded")).sampling
    painter, judge = Painter(load_base("embedded"), sampling), load_judge()
    rng = np.random.default_rng([seed, 7])
    asked = [_asked(rng) for _ in range(pictures)]
    prompts = [(_prompt(wanted), index) for index, wanted in enumerate(asked)]
    painted = painter.paint(prompts, seed, painter.sampling(), progress=lambda x: track(x, "painting", pictures))
    tiles = [painting.pixels for painting in painted]
    wide = 16
    rows = [np.concatenate(tiles[i : i + wide], 1) for i in range(0, len(tiles) - wide + 1, wide)]
    Image.fromarray(np.concatenate(rows[:16])).save(out / "check.png")
    shares = _shares(judge, asked, tiles)
    world = _world(modules, painter.base.picture_size[0])
    true = _shares(judge, asked, _rendered(world, asked, seed)) if world else {}
    for question, share in shares.items():
        print(f"{question:24} {share:6.1%}" + (f"   true pictures {true[question]:6.1%}" if world else ""))
    shares |= {f"true {question}": share for question, share in true.items()}
    for name, real in _unseen(out, world, seed, painter.base.picture_size):
        shares[f"psnr_{name}"] = round(evaluate(load_autoencoder(painter.base), quantizer_of(painter.base), to_pixels(real)), 2)
        print(f"{name:24} {shares[f'psnr_{name}']:.2f} dB of {len(real)}")
    write_json(out / "check.json", shares)
    return shares


def _shares(judge: Judge, asked: list[dict[str, str]], pictures: list[np.ndarray]) -> dict[str, float]:
    """How often each question has the right answer; of "class", each class too."""
    right = defaultdict(list)
    for wanted, pixels in zip(asked, pictures):
        said = _answers(judge, pixels)
        for question, answer in wanted.items():
            hit = said[question] == answer
            if question == "class" and "beside" in wanted:
                right["first of two"].append(hit)
                continue
            right[question].append(hit)
            if question == "class":
                right[f"class: {answer}"].append(hit)
    return {question: round(float(np.mean(right[question])), 4) for question in sorted(right, key=_order)}


def _order(question: str) -> tuple[bool, str]:
    return question.startswith("class:"), question


def _world(modules: Path | None, pixels: int) -> World | None:
    if modules is None or not modules.is_dir():
        return None
    art = Art(modules)
    return World(art.drawings(CLASSES), art.drawings(ACCESSORIES), pixels)


def _rendered(world: World, asked: list[dict[str, str]], seed: int) -> list[np.ndarray]:
    """True pictures of what is asked for, in the studio, each of any drawing of its class."""
    studio, pictures = World(world.drawings, world.accessories, world.pixels, STUDIO), []
    for index, wanted in enumerate(asked):
        rng, own = np.random.default_rng([seed, 9, index]), dict(wanted)
        drawings = world.drawings[own.pop("class")]
        first = drawings[rng.integers(len(drawings))]
        beside = world.alike(rng, first, own.pop("beside")) if "beside" in own else None
        view = View(first, beside=beside, **own)
        pictures.append(np.asarray(studio.render(rng, view)))
    return pictures


def _unseen(out: Path, world: World | None, seed: int, size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    if world:
        rng = np.random.default_rng([seed, 8])
        yield "world", np.stack([np.asarray(world.render(rng, world.view(rng))) for _ in range(UNSEEN)])
    photos = photographs(out / "unseen")
    if photos:
        opened = (ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in photos)
        yield "photos", np.stack([np.asarray(ImageOps.fit(photo, size, Image.LANCZOS)) for photo in opened])


def _answers(judge: Judge, pixels: np.ndarray) -> dict[str, str]:
    return judge.answers(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)[0]


def _asked(rng: np.random.Generator) -> dict[str, str]:
    one_of = lambda words: list(words)[rng.integers(len(words))]  # noqa: E731
    asked = {"class": one_of(CLASSES), "scene": one_of(SCENES)}
    if rng.random() < 1 / 2:
        asked["colour"] = one_of(COLOURS)
    if rng.random() < 1 / 3:
        asked["accessory"] = one_of(ACCESSORIES)
    if rng.random() < 1 / 6:
        asked["size"] = one_of(SIZES)
    if rng.random() < 1 / 6 and asked.get("size") != "big":
        asked["place"] = one_of(PLACES)
    if not asked.keys() & {"size", "place"} and rng.random() < 1 / 4:
        asked["beside"] = one_of([noun for noun in CLASSES if noun != asked["class"]])
    return asked


def _prompt(asked: dict[str, str]) -> str:
    thing = " ".join(asked[question] for question in ("size", "colour", "class") if question in asked)
    worn = f" wearing {asked['accessory']}" if "accessory" in asked else ""
    place = f" {asked['place']}" if "place" in asked else ""
    beside = f" next to {article(asked['beside'])}{asked['beside']}" if "beside" in asked else ""
    return f"{asked['scene']} , {article(thing)}{thing}{worn}{beside}{place}"
