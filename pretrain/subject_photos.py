"""Render photos of held-out drawings: the demo's subject, or all subjects of a benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from arbooth.benchmark.score import asked
from arbooth.data.bases import load_base
from arbooth.data.files import read_json, write_json
from arbooth.errors import InputError
from pretrain.art import ACCESSORIES, HELD_OUT, Art, Drawing
from pretrain.refusals import refusals
from pretrain.train_encoders import labels
from pretrain.world import FREE, View, World

PHOTOS = (
    "on the grass",
    "on a wooden table",
    "on the beach",
    "in the city",
    "on a white background",
    "in the kitchen",
    "in the forest",
    "in the snow",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the photos, or of a benchmark (with drawings.json)")
    parser.add_argument("--drawing", help="set/name, say fluent/poodle; without it, a benchmark's")
    parser.add_argument("--modules", type=Path, default=Path(__file__).parent / "node_modules")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--count", type=int, default=5)
    with refusals():
        render(parser.parse_args())


def render(given: argparse.Namespace) -> None:
    """What the command line asks for.

    Raises:
        InputError: no such drawing is held out.
    """
    art = Art(given.modules, 512)
    drawings = {d.name: d for own in art.drawings(HELD_OUT).values() for d in own}
    accessories = art.drawings(ACCESSORIES)
    if given.drawing:
        if given.drawing not in drawings:
            raise InputError(f"no drawing {given.drawing!r} is held out (known: {', '.join(sorted(drawings))})")
        photograph(drawings[given.drawing], PHOTOS[: given.count], given.out, given.pixels, 0)
        return
    for number, (subject, name) in enumerate(read_json(given.out / "drawings.json").items()):
        photograph(drawings[name], PHOTOS, given.out / "photos" / subject, given.pixels, 2 * number)
        prompts = OmegaConf.load(given.out / "params.yaml").prompt_sets[given.out.name]
        hold_back(drawings[name], accessories, list(prompts), given.out / "held" / subject, 2 * number + 1)


def hold_back(
    drawing: Drawing, accessories: dict[str, list[Drawing]], prompts: list[str], out: Path, seed: int
) -> None:
    """What a perfect painter would make of every prompt: the ceiling of a benchmark."""
    world = World({drawing.noun: [drawing]}, accessories, load_base("embedded").picture_size[0], FREE)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, template in enumerate(prompts):
        prompt = template.replace("{subject}", f"<S*> {drawing.noun}")
        view = View(drawing, **asked(prompt, labels()))
        rows.append({"kind": "subject", "prompt": prompt, "file": f"{index:02d}.png"})
        world.render(np.random.default_rng([seed, index]), view).save(out / rows[-1]["file"])
    write_json(out / "index.json", rows)


def photograph(drawing: Drawing, scenes: tuple[str, ...], out: Path, pixels: int, seed: int) -> None:
    """One photo of a drawing a scene."""
    world = World({drawing.noun: [drawing]}, {}, pixels, FREE)
    out.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes):
        picture = world.render(np.random.default_rng([seed, index]), View(drawing, scene))
        picture.save(out / f"{index:02d}.jpg", quality=90)


if __name__ == "__main__":
    main()
