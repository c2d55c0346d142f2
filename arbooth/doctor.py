"""What is there, and what to do about what isn't: tools, this machine, and everything that a project's files say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from arbooth import dvcfiles, graph
from arbooth.data.bases import Base
from arbooth.data.files import leftovers, read_json
from arbooth.errors import InputError
from arbooth.params import Params
from arbooth.project import Project, dead_workspaces
from arbooth.settings import device_memory, without_secrets


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; `needed` findings decide the exit code."""

    what: str
    found: str
    ok: bool = True
    needed: bool = True
    remedy: str = ""


def diagnose(project: Project) -> list[Finding]:
    """Check versions, tools, devices, git, DVC, parameters, every artifact, weights and the ledger."""
    rows = [_python(), *(_package(name) for name in ("torch", "transformers", "dvc", "mlflow", "prefect"))]
    rows += map(_tool, ("git", "make"))
    try:
        _ = project.settings
    except InputError as error:
        return [*rows, Finding("settings", str(error), False, True, "mend it: the rest can't be looked at before")]
    rows += [_device(project), _cores(), *_project(project)]
    rows += [_encoder(project, name) for name in ("dino-vits16", "clip-vit-base-patch32", "lpips")]
    return rows


def mend(project: Project) -> list[str]:
    """Do what is safe: sweep what killed runs left, write dvc.yaml anew, follow a moved ledger. Says what was done."""
    from arbooth.registry.ledger import follow_move

    done = []
    for path in leftovers(project.root):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        done.append(f"{path.relative_to(project.root)}: removed")
    for path in dead_workspaces(project.home):
        shutil.rmtree(path, ignore_errors=True)
        done.append(f"{path.relative_to(project.home)}: removed, its run was killed")
    done += filter(None, [dvcfiles.mend(project, name) for name in dvcfiles.cut(project)])
    done += [f"{name}: written anew" for name in project.write_graph()]
    return done + [f"{line}: artifacts found again" for line in follow_move(project.tracking_uri)]


def _python() -> Finding:
    return Finding("Python", sys.version.split()[0], sys.version_info >= (3, 11), True, "install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", False, True, "run `make setup`")


def _tool(name: str) -> Finding:
    path = shutil.which(name)
    remedy = f"install {name} with your system's package manager"
    return Finding(name, path or "not found", path is not None, True, remedy)


def _device(project: Project) -> Finding:
    import torch

    try:
        device = project.device
    except InputError as error:
        return Finding("device", str(error), False, True, "set ARBOOTH_DEVICE to auto")
    if device.type == "cuda":
        return Finding("device", f"{torch.cuda.get_device_name(device)}, {device_memory(device) / 2**30:.0f} GiB")
    return Finding("device", "cpu", False, False, "the embedded base is fine with it; Infinity-2B wants a CUDA GPU")


def fits(project: Project, base: Base, params: Params) -> Finding:
    """Whether every stage's memory is there, and the optimizer, told before one runs."""
    from arbooth.memory import misfits
    from arbooth.method.optimizers import optimizer_of

    try:
        for name in {params.finetune.optimizer, *(params.of_subject(s).finetune.optimizer for s in params.subjects)}:
            optimizer_of(name)
        said = misfits(base, params, device_memory(project.device))
    except InputError as error:  # no such device is told elsewhere
        return Finding("memory", str(error), False, False, "mend what it names")
    return Finding("memory", "; ".join(said) or "every stage fits", not said, False, "the rest runs as it is")


def _cores() -> Finding:
    return Finding("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))


def _project(project: Project) -> Iterator[Finding]:
    from arbooth.data.bases import PARTS

    yield _repository(project)
    try:
        params = project.params()
        base = project.base(params)
        for part in PARTS:
            base.verified(part)
    except InputError as error:
        yield Finding("project", str(error), False, True, "mend what it names")
        return
    yield Finding("params.yaml", f"{len(params.subjects)} subjects, {len(params.classes)} classes")
    yield Finding("base", f"{base.name}, {base.hash[:12]}, weights as recorded")
    yield fits(project, base, params)
    stale = project.stale_graph(params)
    found = f"{stale[0]} is stale" if stale else "as params.yaml asks"
    yield Finding("dvc.yaml", found, not stale, True, "run `arbooth graph`, or `arbooth doctor --fix`")
    for name in params.subjects:
        folder = project.photos(name)
        count = len([p for p in folder.iterdir() if not p.name.startswith(".")]) if folder.is_dir() else 0
        yield Finding(f"photos of {name}", str(count), count > 0, True, f"put photos into {folder}, or `dvc pull`")
    yield from _dvc_files(project, params)
    yield from _artifacts(project)
    left = [*leftovers(project.root), *dead_workspaces(project.home)]
    names = ", ".join(str(os.path.relpath(path, project.root)) for path in left[:3])
    yield Finding("half-written files", names or "none", not left, False, "run `arbooth doctor --fix`")
    yield from _ledger(project, params)


def _repository(project: Project) -> Finding:
    """DVC is set up, and finds the git repository that it was told of."""
    if not (project.root / ".dvc").is_dir():
        return Finding("DVC repository", "not found", False, True, "run `git init` and `dvc init`")
    config = project.root / ".dvc" / "config"
    alone = config.is_file() and "no_scm = true" in config.read_text(encoding="utf-8").lower()
    asked = ["git", "rev-parse", "--show-toplevel"]
    git = shutil.which("git") and subprocess.run(asked, cwd=project.root, capture_output=True, check=False)
    if alone or (git and git.returncode == 0):
        return Finding("DVC repository", "found")
    return Finding("DVC repository", "it expects git, and this is no git repository", False, True, "run `git init`")


def _dvc_files(project: Project, params: Params) -> Iterator[Finding]:
    """DVC's own files, which a kill can break or cut off."""
    import yaml

    broken = dvcfiles.cut(project)
    found = f"cut in the middle: {', '.join(broken[:3])}" if broken else "whole"
    yield Finding("DVC's records", found, not broken, True, "run `arbooth doctor --fix`, then `dvc repro`: its cache is kept")
    for name in params.subjects:
        path = project.root / graph.lock("subject", name)
        if not path.is_file() or graph.lock("subject", name) in broken:
            continue
        locked = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["stages"]
        made = [s for s in graph.SUBJECT_STAGES if all(p.exists() for p in project.paths(s, name, params)[1].values())]
        lost = [stage for stage in made if stage not in locked]
        if lost:
            yield Finding(str(path), f"lacks {', '.join(lost)}", False, True, "run `dvc repro`: its cache is kept")


def _artifacts(project: Project) -> Iterator[Finding]:
    """Every cache, adapter and record is whole."""
    from arbooth.data.tensors import open_tensors

    folder, bad = project.root / "artifacts", []
    for path in sorted(folder.rglob("*.safetensors")) + sorted(folder.rglob("*.json")):
        try:
            open_tensors(path) if path.suffix == ".safetensors" else read_json(path)
        except InputError as error:
            bad.append(Finding(str(path.relative_to(project.root)), str(error), False, True, "run `dvc repro`"))
    yield from bad
    if folder.is_dir() and not bad:
        yield Finding("artifacts", "every file whole")


def _ledger(project: Project, params: Params) -> Iterator[Finding]:
    """The address, and in a local database whether every alias points at files that exist."""
    from arbooth.registry.ledger import SQLITE, lost_versions

    uri = project.tracking_uri
    yield Finding("MLflow address", without_secrets(uri))
    if uri.startswith(SQLITE) and Path(uri.removeprefix(SQLITE)).is_file():
        try:
            lost = lost_versions(uri, [f"arbooth-{name}" for name in params.subjects])
        except InputError as error:
            yield Finding("MLflow registry", str(error), False, True, "mend what it names")
            return
        remedy = "run `arbooth doctor --fix` if the project was moved, else `dvc repro publish`, which registers anew"
        yield Finding("MLflow registry", f"no files of {', '.join(lost)}" if lost else "fine", not lost, True, remedy)


def _encoder(project: Project, name: str) -> Finding:
    folder = project.encoders / name
    remedy = f"for evaluate.encoders published or corrected, put it into {folder}"
    return Finding(name, str(folder) if folder.is_dir() else "not there", folder.is_dir(), False, remedy)
