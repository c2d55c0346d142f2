"""Pictures into folders: what `arbooth generate` and the stage `generate` leave on disk."""

from __future__ import annotations

import re
import statistics
from functools import partial
from pathlib import Path

from PIL import Image

from arbooth.data.files import write_json
from arbooth.data.pictures import write_picture
from arbooth.errors import InputError
from arbooth.painting.painter import Painter, Painting
from arbooth.painting.sheet import contact_sheet
from arbooth.progress import track


def write_paintings(folder: Path, wanted: list[dict], paintings: list[Painting]) -> None:
    """Numbered pictures, and index.json that says what each was asked to be."""
    rows = [{**row, "file": f"{number:04d}.png"} for number, row in enumerate(wanted)]
    for row, painting in zip(rows, paintings):
        write_picture(folder / row["file"], painting.pixels, painting.record)
    write_json(folder / "index.json", rows)


def paint_to_folder(
    painter: Painter, subject: str | None, prompt: str, n: int, seed: int, given: dict, folder: Path
) -> tuple[list[Path], float]:
    """Paint n pictures of one prompt; returns the files (the last is the contact sheet) and median seconds.

    Raises:
        InputError: an unusable prompt or setting; nothing is written then.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the pictures")
    pairs = [(prompt, index) for index in range(n)]
    paintings = painter.paint(pairs, seed, painter.sampling(**given), subject, partial(track, label="generate"))
    stem = f"{re.sub(r'[^a-z0-9]+', '-', prompt.lower()).strip('-')[:60]}-seed{seed}"
    files = [folder / f"{stem}-{index}.png" for index in range(n)]
    for path, painting in zip(files, paintings):
        write_picture(path, painting.pixels, painting.record)
    sheet = folder / f"{stem}-sheet.png"
    contact_sheet(sheet, [(prompt, [Image.fromarray(p.pixels) for p in paintings])])
    return [*files, sheet], statistics.median(p.seconds for p in paintings)
