"""Render the world once: pictures to one array on disk, what they show to a table beside it."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from arbooth.data.files import write_json
from arbooth.errors import InputError
from arbooth.progress import track
from pretrain.art import ACCESSORIES, CLASSES, Art, Drawing
from pretrain.world import STUDIO, View, World

CHUNK = 256
# What is rendered: the world as the transformer learns it, the world with more variety, and other drawings.
BANKS = ("studio", "varied", "others")
# How many of the studio's things have a look of their own.
OWN_SHARE = 0.4
# What of a view is a drawing: tables have its name and noun.
DRAWN = ("drawing", "beside")


def render(modules: Path, out: Path, bank: str, count: int, pixels: int, seed: int, workers: int) -> None:
    """Write `pictures.npy` [count,pixels,pixels,3] uint8 and `views.json` of one of `BANKS` to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / "pictures.part.npy"
    pictures = np.lib.format.open_memmap(part, "w+", np.uint8, (count, pixels, pixels, 3))
    views: list[dict] = []
    jobs = [(modules, bank, pixels, seed, start, min(CHUNK, count - start)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        for job, (block, shown) in track(zip(jobs, pool.map(_chunk, jobs)), f"rendering {bank}", len(jobs)):
            pictures[job[4] : job[4] + job[5]] = block
            views.extend(shown)
    pictures.flush()
    # Without the pictures of before, so that a kill in between leaves a bank that is refused.
    (out / "pictures.npy").unlink(missing_ok=True)
    write_json(out / "views.json", views)
    part.rename(out / "pictures.npy")


def load(folder: Path) -> tuple[np.ndarray, list[View]]:
    """The rendered pictures (memory-mapped) and their views; drawings carry only their names.

    Raises:
        InputError: the views say other things than this code does.
    """
    rows = json.loads((folder / "views.json").read_text())
    if not rows or rows[0].keys() != View.__dataclass_fields__.keys():
        raise InputError(f"{folder} was rendered by other code: run the step `render` again")
    views = [View(**row | {part: row[part] and Drawing(*row[part], None) for part in DRAWN}) for row in rows]
    return np.load(folder / "pictures.npy", mmap_mode="r"), views


def load_photos(folder: Path) -> np.ndarray:
    return np.load(folder / "photos.npy", mmap_mode="r")


def photographs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))


def crop_photos(folder: Path, out: Path, count: int, pixels: int, seed: int) -> None:
    """Write `photos.npy` [count,pixels,pixels,3] uint8: random crops of the photographs in `folder`."""
    out.mkdir(parents=True, exist_ok=True)
    paths = photographs(folder)
    if not paths:
        raise InputError(f"{folder} holds no photographs (.jpg or .png)")
    crops = np.empty((count, pixels, pixels, 3), np.uint8)
    for which, path in enumerate(track(paths, "cropping", len(paths))):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        rng = np.random.default_rng([seed, which])
        for index in range(which, count, len(paths)):
            # Sides spread evenly in the logarithm: as often a whole view as a detail of it.
            side = int(min(photo.size) * 8 ** -rng.random())
            x, y = (int(rng.integers(0, length - side + 1)) for length in photo.size)
            box = (x, y, x + side, y + side)
            crops[index] = np.asarray(photo.resize((pixels, pixels), Image.BOX, box, reducing_gap=2.0))
    part = out / "photos.part.npy"
    np.save(part, crops)
    part.rename(out / "photos.npy")


@lru_cache(maxsize=1)
def _world(modules: Path, bank: str, pixels: int) -> World:
    art = Art(modules)
    others = art.others() if bank != "varied" else {}
    accessories = art.drawings(ACCESSORIES)
    if bank == "studio":
        unnamed = [one for own in others.values() for one in own]
        return World(art.drawings(CLASSES), accessories, pixels, STUDIO, unnamed, OWN_SHARE)
    return World(others or art.drawings(CLASSES), accessories, pixels)


def _chunk(job: tuple[Path, str, int, int, int, int]) -> tuple[np.ndarray, list[dict]]:
    modules, bank, pixels, seed, start, count = job
    world = _world(modules, bank, pixels)
    block, shown = [], []
    for index in range(start, start + count):
        # One generator a picture, so that the pictures do not depend on chunks or workers.
        rng = np.random.default_rng([seed, BANKS.index(bank), index])
        view = world.view(rng)
        if bank == "others":
            view = View(view.drawing, view.scene)
        block.append(np.asarray(world.render(rng, view)))
        named = {part: (one := getattr(view, part)) and [one.name, one.noun] for part in DRAWN}
        shown.append(vars(view) | named)
    return np.stack(block), shown
