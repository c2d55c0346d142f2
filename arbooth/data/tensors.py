"""Safetensors files with one header entry: whole or not at all, the same bytes for the same content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from arbooth.data.files import whole_file
from arbooth.errors import InputError

if TYPE_CHECKING:
    from arbooth.model.quantizer import Quantizer

HEADER = "arbooth"


def origin(base_hash: str, quantizer: Quantizer, **more) -> dict[str, str]:
    """Header of a cache: the base, the schedule and whatever else it depends on, as text."""
    return {
        "base": base_hash,
        "schedule": json.dumps(quantizer.schedule.maps),
        **{k: json.dumps(v, sort_keys=True) for k, v in more.items()},
    }


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """A safetensors file, whole or not at all, with the same bytes for the same content."""
    from safetensors.torch import save_file

    # One entry: safetensors writes several in an order that changes from run to run.
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    with whole_file(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata)
        part.chmod(0o644)  # safetensors leaves it to its owner alone


def read_tensors(path: Path, expected: dict[str, str]) -> dict[str, Tensor]:
    """Tensors of a cache.

    Raises:
        InputError: the cache is missing, broken, or made with something else than expected.
    """
    tensors, header = open_tensors(path)
    stale = sorted(k for k, v in expected.items() if header.get(k) != v)
    if stale:
        raise InputError(
            f"{path} is stale: it was made with another {' and '.join(stale)}; run `dvc repro` to make it anew"
        )
    return tensors


def open_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        InputError: the file is missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is not there: run `dvc repro`, which makes it")
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, _header(file.metadata())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): delete it and run `dvc repro`") from None


def _header(metadata: dict[str, str] | None) -> dict[str, str]:
    return json.loads((metadata or {}).get(HEADER, "{}"))
