"""What is there, and what to do about what isn't."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from arbooth.errors import InputError
from arbooth.project import Project
from arbooth.settings import without_secrets


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; `needed` findings decide the exit code."""

    what: str
    found: str
    ok: bool = True
    needed: bool = True
    remedy: str = ""


def diagnose(project: Project) -> list[Finding]:
    """Check versions, tools, devices, parameters, weights and the tracking address."""
    rows = [
        _python(),
        *(_package(name) for name in ("torch", "transformers", "dvc", "mlflow", "prefect")),
        *map(_tool, ("git", "make")),
    ]
    rows += [_device(project), _cores(), *_project(project)]
    rows += [_encoder(project, name) for name in ("dino-vits16", "clip-vit-base-patch32", "lpips")]
    rows.append(Finding("MLflow address", without_secrets(project.tracking_uri)))
    return rows


def _python() -> Finding:
    return Finding("Python", sys.version.split()[0], sys.version_info >= (3, 11), True, "install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", False, True, "run `make setup`")


def _tool(name: str) -> Finding:
    path = shutil.which(name)
    return Finding(
        name, path or "not found", path is not None, True, f"install {name} with your system's package manager"
    )


def _device(project: Project) -> Finding:
    import torch

    try:
        device = project.device
    except InputError as error:
        return Finding("device", str(error), False, True, "set ARBOOTH_DEVICE to auto")
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return Finding("device", f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB")
    return Finding("device", "cpu", False, False, "the embedded base is fine with it; Infinity-2B wants a CUDA GPU")


def _cores() -> Finding:
    return Finding("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))


def _project(project: Project) -> list[Finding]:
    from arbooth.data.bases import PARTS

    try:
        params = project.params()
        base = project.base(params)
        for part in PARTS:
            base.verified(part)
    except InputError as error:
        return [Finding("project", str(error), False, True, "mend what it names")]
    rows = [
        Finding("params.yaml", f"{len(params.subjects)} subjects, {len(params.classes)} classes"),
        Finding("base", f"{base.name}, {base.hash[:12]}, weights as recorded"),
    ]
    for name in params.subjects:
        folder = project.photos(name)
        count = len(list(folder.glob("*"))) if folder.is_dir() else 0
        rows.append(
            Finding(f"photos of {name}", str(count), count > 0, True, f"put photos into {folder}, or `dvc pull`")
        )
    stale = project.stale_graph(params)
    rows.append(
        Finding(
            "dvc.yaml",
            f"{stale[0]} is stale" if stale else "as params.yaml asks",
            not stale,
            True,
            "run `arbooth graph`",
        )
    )
    repository = (project.root / ".dvc").is_dir()
    rows.append(
        Finding(
            "DVC repository",
            "found" if repository else "not found",
            repository,
            True,
            "run `arbooth init .`, or `git init` and `dvc init`",
        )
    )
    return rows


def _encoder(project: Project, name: str) -> Finding:
    folder = project.encoders / name
    remedy = f"for evaluate.encoders published or corrected, put it into {folder}"
    return Finding(name, str(folder) if folder.is_dir() else "not there", folder.is_dir(), False, remedy)
