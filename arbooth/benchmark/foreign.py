"""Pictures of any other method, measured by the protocol that ours are."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from arbooth.data.files import write_json, write_table
from arbooth.data.manifest import photo_files
from arbooth.data.photos import read_photos
from arbooth.data.pictures import read_pictures
from arbooth.errors import InputError
from arbooth.method.prompts import with_subject, without_identifier
from arbooth.metrics.encoders import load_encoders
from arbooth.metrics.measuring import Asked, measured, summary
from arbooth.params import NOUN, Evaluate
from arbooth.progress import track
from arbooth.project import Project

COLUMNS = ("file", "prompt")
SUBJECT = "{subject}"
AGAIN = "have its method paint anew, all pictures of a prompt in one size"
# Of the table that says what was asked for.
MOST_BYTES = 10_000_000


def evaluate_pictures(
    project: Project, images: Path, photos: Path, prompts: Path, noun: str, encoders: str, out: Path | None = None
) -> dict[str, float]:
    """Metrics of pictures that were painted elsewhere: means over prompts, as the stage `evaluate` has them.

    Args:
        images: the folder of the pictures.
        photos: of the subject, 1 to 20.
        prompts: CSV with the columns `file` (in `images`; a folder stands for all pictures in it) and `prompt`, with
            `{subject}` where the subject stands; one without it names the class alone.
        noun: the class, which takes that place for text encoders.
        encoders: embedded, corrected or published.
        out: a folder to write `prompts.csv` and `metrics.json` to.

    Raises:
        InputError: something of this is not there or not readable, or a file lies outside the folder.
    """
    if not NOUN.fullmatch(noun):
        raise InputError(f"{noun!r} is no class noun: write one or two words, say 'teddy bear'")
    checked_encoders(encoders)
    groups = _groups(images, prompts)
    shown = [_tensor(photo.image) for photo in read_photos(photos, 1, project.settings.max_pixels).photos]
    measuring = load_encoders(encoders, project.encoders, project.device)
    table = measured(measuring, shown, _asked(groups, noun), project.device)
    means = summary(table, measuring.names)
    if out is not None:
        write_table(out / "prompts.csv", table, ["kind", "prompt", "images", *measuring.names.values()])
        write_json(out / "metrics.json", means)
    return means


def checked_encoders(kind: str) -> str:
    """The same kind, if params.yaml knows it.

    Raises:
        InputError: it doesn't.
    """
    known = get_args(Evaluate.model_fields["encoders"].annotation)
    if kind not in known:
        raise InputError(f"no encoders are called {kind!r}: use {', '.join(known)}")
    return kind


def _groups(images: Path, prompts: Path) -> dict[str, list[Path]]:
    """Prompt -> its pictures, in the order of the table."""
    if not images.is_dir():
        raise InputError(f"{images} is not a folder of pictures")
    groups: dict[str, list[Path]] = {}
    for number, (name, prompt) in enumerate(_rows(prompts), 2):
        path = images / name
        if not name or not path.resolve().is_relative_to(images.resolve()):
            raise InputError(f"{prompts}, line {number}: {name!r} is no file in {images}")
        found = photo_files(path) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise InputError(f"{prompts}, line {number}: {path} is not there, or holds no pictures")
        groups.setdefault(prompt, []).extend(found)
    if not groups:
        raise InputError(f"{prompts} names no pictures: write lines of {','.join(COLUMNS)} below a line that says so")
    return groups


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES} bytes: that is no table of prompts")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise InputError(f"{path} has not the columns {' and '.join(COLUMNS)} in its first line")
            for row in reader:
                if not (row["prompt"] or "").strip():
                    raise InputError(f"{path}, line {reader.line_num}: there is no prompt")
                yield (row["file"] or "").strip(), row["prompt"].strip()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): name a CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not readable as CSV ({error})") from None


def _asked(groups: dict[str, list[Path]], noun: str) -> Iterator[Asked]:
    for prompt, files in track(groups.items(), "evaluate", len(groups)):
        kind = "subject" if SUBJECT in prompt else "class"
        yield Asked(kind, prompt, prompt, without_identifier(with_subject(prompt, noun)), read_pictures(files, AGAIN))


def _tensor(image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
