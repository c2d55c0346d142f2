"""Pictures into folders: what `arbooth generate` and the stage `generate` leave on disk."""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import tempfile
from functools import partial
from pathlib import Path

from PIL import Image

from arbooth.data.files import write_json
from arbooth.data.pictures import write_picture
from arbooth.errors import InputError
from arbooth.model.sampling import Sampling
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
    sampling = painter.sampling(**given)
    paintings = painter.paint(pairs, seed, sampling, subject, partial(track, label="generate"))
    stem = stem_of(prompt, seed, sampling)
    names = [*(f"{stem}-{index}.png" for index in range(n)), f"{stem}-sheet.png"]
    # All are written before any takes its place: a full disk leaves none.
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=f".{os.getpid()}.part", dir=folder) as aside:
        for name, painting in zip(names, paintings):
            write_picture(Path(aside) / name, painting.pixels, painting.record)
        contact_sheet(Path(aside) / names[-1], [(prompt, [Image.fromarray(p.pixels) for p in paintings])])
        for name in names:
            (Path(aside) / name).replace(folder / name)
    return [folder / name for name in names], statistics.median(p.seconds for p in paintings)


def stem_of(prompt: str, seed: int, sampling: Sampling) -> str:
    """How files are called: the prompt's first words for people, a digest of all that tells pictures apart."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:48].strip("-") or "picture"
    digest = hashlib.sha256(f"{prompt}\0{sampling}".encode()).hexdigest()[:8]
    return f"{words}-{digest}-seed{seed}"
