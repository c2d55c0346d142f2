"""A registered subject as a painter: its base found on this machine, its adapter loaded."""

from __future__ import annotations

from pathlib import Path

from arbooth.data.adapters import read_adapter
from arbooth.data.bases import EMBEDDED, Base
from arbooth.data.files import read_json
from arbooth.errors import InputError
from arbooth.painter import Painter
from arbooth.settings import settings, torch_device


def load_registered(adapter: Path, reference: Path) -> tuple[Painter, str]:
    """Painter and subject of a registered model's two artifacts.

    Raises:
        InputError: the base is not on this machine, or another network bears its name.
    """
    saved = read_json(reference)
    if saved["name"] == "embedded":
        base = Base("embedded", read_json(EMBEDDED / "base.json"), EMBEDDED)
    else:
        base = Base(saved["name"], saved["record"], settings().path("weights") / saved["name"])
    if base.hash != saved["hash"]:
        raise InputError(f"this model needs base {saved['hash'][:12]}, and {base.name!r} here is {base.hash[:12]}")
    own = read_adapter(adapter).settings
    painter = Painter(base, torch_device(), own["picture"]["ratio"], own["picture"]["pixels"], own["compute"])
    return painter, painter.add(adapter).subject


def painter_of_folder(folder: Path) -> tuple[Painter, str]:
    """The same from a downloaded model folder.

    Raises:
        InputError: the folder is not a model that arbooth registered.
    """
    artifacts = folder / "artifacts"
    adapters = sorted(artifacts.glob("*.safetensors"))
    if len(adapters) != 1 or not (artifacts / "base.json").is_file():
        raise InputError(f"{folder} is not a model that arbooth registered")
    return load_registered(adapters[0], artifacts / "base.json")
