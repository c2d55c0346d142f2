"""Does the packed base paint what it is told? Fresh prompts, answered by the judge."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from arbooth.data.bases import EMBEDDED, load_base
from arbooth.data.files import write_json
from arbooth.metrics.judge import load_judge
from arbooth.painter import Painter
from arbooth.progress import track
from pretrain.art import ACCESSORIES, CLASSES
from pretrain.scenes import SCENES
from pretrain.world import COLOURS


def check(out: Path, classes: int, pictures: int, seed: int) -> dict[str, float]:
    """Paint `pictures` of random views, write a sheet and the shares of right answers to `out`, print them.

    Half of the prompts name a colour, a third an accessory; all name class and scene, in wordings
    that no training caption has.
    """
    painter, judge = Painter(load_base("embedded", out, out)), load_judge(EMBEDDED)
    rng = np.random.default_rng([seed, 7])
    right, tiles = defaultdict(list), []
    asked = [_asked(rng, list(CLASSES)[:classes]) for _ in range(pictures)]
    prompts = [(_prompt(views), index) for index, views in enumerate(asked)]
    painted = painter.paint(prompts, seed, painter.sampling(), progress=lambda x: track(x, "painting", pictures))
    for wanted, painting in zip(asked, painted):
        said = judge.answers(torch.from_numpy(painting.pixels).permute(2, 0, 1)[None].float() / 255)[0]
        for question, answer in wanted.items():
            right[question].append(said[question] == answer)
            if question == "class":
                right[f"class: {answer}"].append(said[question] == answer)
        tiles.append(painting.pixels)
    shares = {question: round(float(np.mean(own)), 4) for question, own in right.items()}
    wide = 16
    rows = [np.concatenate(tiles[i : i + wide], 1) for i in range(0, len(tiles) - wide + 1, wide)]
    Image.fromarray(np.concatenate(rows[:16])).save(out / "check.png")
    write_json(out / "check.json", shares)
    for question, share in shares.items():
        print(f"{question:24} {share:6.1%} of {len(right[question])}")
    return shares


def _asked(rng: np.random.Generator, nouns: list[str]) -> dict[str, str]:
    asked = {"class": nouns[rng.integers(len(nouns))], "scene": list(SCENES)[rng.integers(len(SCENES))]}
    if rng.random() < 1 / 2:
        asked["colour"] = list(COLOURS)[rng.integers(len(COLOURS))]
    if rng.random() < 1 / 3:
        asked["accessory"] = list(ACCESSORIES)[rng.integers(len(ACCESSORIES))]
    return asked


def _prompt(asked: dict[str, str]) -> str:
    colour = f"{asked['colour']} " if "colour" in asked else ""
    worn = f" wearing {asked['accessory']}" if "accessory" in asked else ""
    return f"{asked['scene']} , a {colour}{asked['class']}{worn}"
