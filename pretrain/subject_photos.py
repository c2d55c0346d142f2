"""Render photos of a held-out drawing: the demo subject, which the base has never seen."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pretrain.art import HELD_OUT, Art
from pretrain.world import View, World

SCENES = ("on the grass", "on a wooden table", "on the beach", "in the city", "on a white background")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("noun")
    parser.add_argument("drawing", help="set/name, say fluent/poodle")
    parser.add_argument("out", type=Path)
    parser.add_argument("--modules", type=Path, default=Path(__file__).parent / "node_modules")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    drawings = Art(given.modules, 512).drawings(HELD_OUT)
    drawing = next(d for d in drawings[given.noun] if d.name == given.drawing)
    world = World(drawings, {}, given.pixels)
    given.out.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(SCENES):
        rng = np.random.default_rng([given.seed, index])
        world.render(rng, View(drawing, scene)).save(given.out / f"{index:02d}.jpg", quality=92)


if __name__ == "__main__":
    main()
