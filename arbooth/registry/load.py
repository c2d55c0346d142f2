"""A registered subject, or one of a project, as a painter: its base found on this machine, its adapter loaded."""

from __future__ import annotations

from pathlib import Path

from arbooth.data.adapters import Adapter, read_adapter
from arbooth.data.bases import Base, load_base
from arbooth.data.files import EMBEDDED, read_fields
from arbooth.errors import InputError, checked_name
from arbooth.painting.painter import Painter
from arbooth.params import Params
from arbooth.project import Project


def painter_of(project: Project, target: str) -> tuple[Painter, str | None]:
    """A painter for a subject of params.yaml, an adapter's file, a registered model (models:/...), or the plain `base`.

    It paints as the subject was judged: with the sampling of params.yaml's `generate`, or the registered one.

    Raises:
        InputError: nothing of that name, or it is not trained yet.
    """
    if target.startswith("models:/"):
        from arbooth.registry.ledger import fetch

        return painter_of_folder(project, fetch(target, project.tracking_uri))
    params = project.params()
    if target.endswith(".safetensors"):
        return _painter_of_file(project, params, Path(target))
    adapter = None if target == "base" else project.adapter(target, params)
    params = params.of_subject(target) if adapter else params
    painter = Painter(project.base(params), params.sampling, project.device, params.compute)
    return painter, painter.add(adapter, target).subject if adapter else None


def _painter_of_file(project: Project, params: Params, path: Path) -> tuple[Painter, str]:
    """Of an adapter's file for the project's base: at the shape and in the type that it was trained with."""
    adapter = read_adapter(path)
    params = params.of_subject(adapter.subject) if adapter.subject in params.subjects else params
    made = adapter.settings
    shape = {**params.picture.model_dump(), **made.get("picture", {})}
    base = load_base(params.base, project.bases, project.weights, shape["ratio"], shape["pixels"])
    sampling = made.get("sampling") or params.sampling
    painter = Painter(base, sampling, project.device, made.get("compute", params.compute))
    return painter, painter.add(path).subject


def painter_of_folder(project: Project, folder: Path) -> tuple[Painter, str]:
    """The same from a downloaded model folder.

    Raises:
        InputError: the folder is not a model that arbooth registered.
    """
    artifacts = folder / "artifacts"
    adapters = sorted(artifacts.glob("*.safetensors"))
    if len(adapters) != 1 or not (artifacts / "base.json").is_file():
        raise InputError(f"{folder} is not a model that arbooth registered")
    return load_registered(project, adapters[0], artifacts / "base.json")


def load_registered(project: Project, path: Path, reference: Path) -> tuple[Painter, str]:
    """Painter and subject of a registered model's two artifacts.

    Raises:
        InputError: the base is not on this machine, or another network bears its name.
    """
    adapter, saved = read_adapter(path), read_fields(reference, name=str, hash=str, record=dict)
    base = _base(project, adapter, saved)
    if base.hash != saved["hash"]:
        raise InputError(f"this model needs base {saved['hash'][:12]}, and {base.name!r} here is {base.hash[:12]}")
    # Models that were registered before adapters said how they were judged have it in their base's record.
    sampling = adapter.settings.get("sampling") or saved["record"].get("sampling")
    if not sampling:
        raise InputError(f"{path} does not say how its pictures are drawn: publish it again")
    painter = Painter(base, {"top_k": 0, "top_p": 1.0, **sampling}, project.device, adapter.settings["compute"])
    return painter, painter.add(path).subject


def _base(project: Project, adapter: Adapter, saved: dict) -> Base:
    shape = adapter.settings["picture"]
    checked_name(saved["name"], "the base of a registered model")
    if saved["name"] == "embedded" and (EMBEDDED / "base.json").is_file():  # else: an environment without the package
        return load_base("embedded", ratio=shape["ratio"], pixels=shape["pixels"])
    return Base(saved["name"], saved["record"], project.weights / saved["name"], shape["ratio"], shape["pixels"])
