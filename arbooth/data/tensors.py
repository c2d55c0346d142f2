"""Safetensors files that say what they are of and carry a checksum: whole or not at all, the same bytes for the same
content. Reading verifies all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arbooth.data.files import whole_file
from arbooth.errors import InputError

if TYPE_CHECKING:
    from arbooth.model.quantizer import Quantizer

HEADER, CHECKSUM = "arbooth", "checksum"
# Type and shape; None fits any size above 0.
Wanted = tuple[torch.dtype, tuple[int | None, ...]]


def origin(base_hash: str, quantizer: Quantizer, **more) -> dict[str, str]:
    """Header of a cache: the base, the schedule and whatever else it depends on, as text."""
    return {
        "base": base_hash,
        "schedule": json.dumps(quantizer.schedule.maps),
        **{k: json.dumps(v, sort_keys=True) for k, v in more.items()},
    }


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """A file of tensors with its header, and their checksum in it."""
    from safetensors.torch import save_file

    kept = {k: v.contiguous() for k, v in tensors.items()}
    # One entry: safetensors writes several in an order that changes from run to run.
    metadata = {HEADER: json.dumps({**header, CHECKSUM: checksum(kept)}, sort_keys=True)}
    with whole_file(path) as part:
        save_file(kept, part, metadata)
        part.chmod(0o644)  # safetensors leaves it to its owner alone


def read_tensors(path: Path, expected: dict[str, str]) -> dict[str, Tensor]:
    """Tensors of a cache.

    Raises:
        InputError: the cache is missing, damaged, or made with something else than expected.
    """
    tensors, header = open_tensors(path)
    stale = sorted(k for k, v in {**expected, CHECKSUM: header.get(CHECKSUM, "?")}.items() if header.get(k) != v)
    if stale:
        what = " and ".join(stale)
        raise InputError(f"{path} is stale: it was made with another {what}; run `dvc repro` to make it anew")
    return tensors


def open_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file; a checksum in the header is verified.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is not there: run `dvc repro`, which makes it")
    remedy = "delete it and run `dvc repro`"
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): {remedy}") from None
    if not isinstance(header, dict) or not all(isinstance(value, str) for value in header.values()):
        raise InputError(f"{path} has a header that says nothing: {remedy}")
    if CHECKSUM in header and header[CHECKSUM] != checksum(tensors):
        raise InputError(f"{path} is damaged (its checksum differs): {remedy}")
    return tensors, header


def check_tensors(path: Path, tensors: dict[str, Tensor], wanted: dict[str, Wanted]) -> None:
    """Raises InputError: a tensor is missing, or has another type or shape, or odd numbers."""
    for name, (dtype, shape) in wanted.items():
        value = tensors.get(name)
        found = None if value is None else f"{value.dtype} {tuple(value.shape)}"
        fits = value is not None and value.dtype == dtype and len(value.shape) == len(shape)
        if value is None or not fits or not all(s > 0 if w is None else s == w for s, w in zip(value.shape, shape)):
            raise InputError(f"{path} holds {name} as {found}, not as {dtype} {shape}: delete it and run `dvc repro`")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"{path} holds numbers that are not finite in {name}: delete it and run `dvc repro`")
