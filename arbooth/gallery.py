"""Pictures into a folder: what `arbooth generate` does, and where results lie."""

from __future__ import annotations

import re
import statistics
from functools import partial
from pathlib import Path

from PIL import Image

from arbooth.data.bases import load_base
from arbooth.data.files import read_json
from arbooth.data.records import contact_sheet, write_picture
from arbooth.errors import NAME, InputError
from arbooth.painter import Painter
from arbooth.params import load_params
from arbooth.progress import track
from arbooth.settings import settings, torch_device, without_secrets


def painter_of(target: str) -> tuple[Painter, str | None]:
    """A painter for a subject of params.yaml, a registered model (models:/...), or the plain `base`.

    Raises:
        InputError: nothing of that name, or it is not trained yet.
    """
    here = settings()
    if target.startswith("models:/"):
        from arbooth.serving.registry import painter_of_folder
        from arbooth.tracking.ledger import fetch

        return painter_of_folder(fetch(target, here.tracking_uri))
    params = load_params(here.project / "params.yaml")
    base = load_base(params.base, here.project, here.path("weights"))
    if target != "base":
        if not NAME.fullmatch(target) or target not in params.subjects:
            known = ", ".join(params.subjects) or "none yet"
            raise InputError(f"no subject {target!r} in params.yaml (known: {known})")
        adapter = here.project / "artifacts" / "finetune" / f"{target}.safetensors"
        if not adapter.is_file():
            raise InputError(f"{target!r} is not trained yet: run `dvc repro finetune@{target}`")
    painter = Painter(base, torch_device(), params.picture.ratio, params.picture.pixels, params.compute)
    if target == "base":
        return painter, None
    return painter, painter.add(adapter).subject


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


def summary_lines() -> list[str]:
    """Where to look after `dvc repro`, and every subject's metrics.

    Raises:
        InputError: nothing has been evaluated yet.
    """
    here = settings()
    params = load_params(here.project / "params.yaml")
    artifacts = here.project / "artifacts"
    lines = []
    for subject in params.subjects:
        path = artifacts / "evaluate" / f"{subject}.json"
        if not path.is_file():
            raise InputError(f"{subject!r} is not evaluated yet: run `dvc repro`")
        lines.append(f"{subject} ({params.noun(subject)})")
        lines += [f"  {name:<24} {value:.3f}" for name, value in read_json(path).items()]
        lines.append(f"  contact sheet            {artifacts / 'sheets' / f'{subject}.png'}")
    lines.append(f"report   {artifacts / 'report.html'}")
    lines.append(f"MLflow   {without_secrets(here.tracking_uri)}")
    lines.append(
        f"         look with: mlflow server --workers 1 --backend-store-uri {without_secrets(here.tracking_uri)}"
    )
    return lines
