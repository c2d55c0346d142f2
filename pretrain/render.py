"""Render the world once: pictures to one array on disk, what they show to a table beside it."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from arbooth.data.files import write_json
from arbooth.progress import track
from pretrain.art import ACCESSORIES, CLASSES, Art, Drawing
from pretrain.world import View, World

CHUNK = 256


def render(modules: Path, out: Path, count: int, pixels: int, seed: int, workers: int) -> None:
    """Write `pictures.npy` [count,pixels,pixels,3] uint8 and `views.json` to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / "pictures.part.npy"
    pictures = np.lib.format.open_memmap(part, "w+", np.uint8, (count, pixels, pixels, 3))
    views: list[dict] = []
    jobs = [(modules, pixels, seed, start, min(CHUNK, count - start)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        for job, (block, shown) in track(zip(jobs, pool.map(_chunk, jobs)), "rendering", len(jobs)):
            pictures[job[3] : job[3] + job[4]] = block
            views.extend(shown)
    pictures.flush()
    write_json(out / "views.json", views)
    part.rename(out / "pictures.npy")


def load(folder: Path) -> tuple[np.ndarray, list[View]]:
    """The rendered pictures (memory-mapped) and their views; drawings carry only their names."""
    rows = json.loads((folder / "views.json").read_text())
    views = [View(Drawing(r["drawing"], r["noun"], None), r["scene"], r["colour"], r["accessory"]) for r in rows]
    return np.load(folder / "pictures.npy", mmap_mode="r"), views


_WORLDS: dict[tuple, World] = {}


def _chunk(job: tuple[Path, int, int, int, int]) -> tuple[np.ndarray, list[dict]]:
    modules, pixels, seed, start, count = job
    if (modules, pixels) not in _WORLDS:
        art = Art(modules)
        _WORLDS[modules, pixels] = World(art.drawings(CLASSES), art.drawings(ACCESSORIES), pixels)
    world = _WORLDS[modules, pixels]
    block, shown = [], []
    for index in range(start, start + count):
        # One generator a picture, so that the pictures do not depend on chunks or workers.
        rng = np.random.default_rng([seed, index])
        view = world.view(rng)
        block.append(np.asarray(world.render(rng, view)))
        shown.append(
            {
                "drawing": view.drawing.name,
                "noun": view.drawing.noun,
                "scene": view.scene,
                "colour": view.colour,
                "accessory": view.accessory,
            }
        )
    return np.stack(block), shown
