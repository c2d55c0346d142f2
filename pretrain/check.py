"""Does the packed base paint what it is told? Fresh prompts, answered by the judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from arbooth.data.bases import EMBEDDED, load_base
from arbooth.data.files import write_json
from arbooth.metrics.judge import Judge, load_judge
from arbooth.painter import Painter
from arbooth.progress import track
from pretrain.art import ACCESSORIES, CLASSES, Art
from pretrain.render import photographs
from pretrain.scenes import SCENES
from pretrain.train_tokenizer import evaluate, to_pixels
from pretrain.world import COLOURS, PLACES, SIZES, World, article

UNSEEN = 128  # pictures of the world that the tokenizer is measured on


def check(out: Path, nouns: list[str], pictures: int, seed: int, modules: Path | None = None) -> dict[str, float]:
    """Paint `pictures` of random views, write a sheet and what is right to `out/check.*`, print it.

    Half of the prompts name a colour, a third an accessory, some a size, a place or a second thing; all name class
    and scene, in a wording that no training caption has. The tokenizer is measured too: in dB, on pictures of the world that
    nothing was trained on (where `modules` holds the art) and on photographs in `out/unseen` (where there are any).
    """
    painter, judge = Painter(load_base("embedded", out, out)), load_judge(EMBEDDED)
    rng = np.random.default_rng([seed, 7])
    right, tiles = defaultdict(list), []
    asked = [_asked(rng, nouns) for _ in range(pictures)]
    prompts = [(_prompt(wanted), index) for index, wanted in enumerate(asked)]
    painted = painter.paint(prompts, seed, painter.sampling(), progress=lambda x: track(x, "painting", pictures))
    for wanted, painting in zip(asked, painted):
        tiles.append(painting.pixels)
        if "beside" in wanted:
            right["two things"].append(_sides(judge, painting.pixels) == (wanted["class"], wanted["beside"]))
            continue
        said = _answers(judge, painting.pixels)
        for question, answer in wanted.items():
            right[question].append(said[question] == answer)
            if question == "class":
                right[f"class: {answer}"].append(said[question] == answer)
    shares = {question: round(float(np.mean(own)), 4) for question, own in right.items()}
    wide = 16
    rows = [np.concatenate(tiles[i : i + wide], 1) for i in range(0, len(tiles) - wide + 1, wide)]
    Image.fromarray(np.concatenate(rows[:16])).save(out / "check.png")
    for question, share in shares.items():
        print(f"{question:24} {share:6.1%} of {len(right[question])}")
    for name, real in _unseen(out, modules, seed):
        shares[f"psnr_{name}"] = round(evaluate(painter.autoencoder, painter.quantizer, to_pixels(real)), 2)
        print(f"{name:24} {shares[f'psnr_{name}']:.2f} dB of {len(real)}")
    write_json(out / "check.json", shares)
    return shares


def _unseen(out: Path, modules: Path | None, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    if modules is not None and modules.is_dir():
        art = Art(modules)
        world = World(art.drawings(CLASSES), art.drawings(ACCESSORIES))
        rng = np.random.default_rng([seed, 8])
        yield "world", np.stack([np.asarray(world.render(rng, world.view(rng))) for _ in range(UNSEEN)])
    photos = photographs(out / "unseen")
    if photos:
        opened = (ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in photos)
        yield "photos", np.stack([np.asarray(ImageOps.fit(photo, (64, 64), Image.LANCZOS)) for photo in opened])


def _answers(judge: Judge, pixels: np.ndarray) -> dict[str, str]:
    return judge.answers(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)[0]


def _sides(judge: Judge, pixels: np.ndarray) -> tuple[str, str]:
    """The classes of what stands on the left and on the right: the judge knows one thing only, so it sees each alone."""
    side, edge = 36, 14
    parts = (pixels[:, :side], pixels[:, -side:])
    return tuple(_answers(judge, np.pad(part, ((0, 0), (edge, edge), (0, 0)), "edge"))["class"] for part in parts)


def _asked(rng: np.random.Generator, nouns: list[str]) -> dict[str, str]:
    one_of = lambda words: list(words)[rng.integers(len(words))]  # noqa: E731
    asked = {"class": one_of(nouns), "scene": one_of(SCENES)}
    if rng.random() < 1 / 10:
        return asked | {"beside": one_of(nouns)}
    if rng.random() < 1 / 2:
        asked["colour"] = one_of(COLOURS)
    if rng.random() < 1 / 3:
        asked["accessory"] = one_of(ACCESSORIES)
    if rng.random() < 1 / 6:
        asked["size"] = one_of(SIZES)
    if rng.random() < 1 / 6 and asked.get("size") != "big":
        asked["place"] = one_of(PLACES)
    return asked


def _prompt(asked: dict[str, str]) -> str:
    thing = " ".join(asked[question] for question in ("size", "colour", "class") if question in asked)
    worn = f" wearing {asked['accessory']}" if "accessory" in asked else ""
    other = f" next to {article(asked['beside'])}{asked['beside']}" if "beside" in asked else ""
    place = f" {asked['place']}" if "place" in asked else ""
    return f"{asked['scene']} , {article(thing)}{thing}{worn}{other}{place}"
