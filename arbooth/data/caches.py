"""Token and prior caches: safetensors whose header says what they were made with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data.files import whole_file
from arbooth.errors import InputError
from arbooth.method.prior import ClassPrior
from arbooth.model.quantizer import Quantizer
from arbooth.model.text import Prompt

HEADER = "arbooth"


@dataclass
class SubjectTokens:
    """What fine-tuning reads of a subject: raw features [P,D,H,W] and its training prompt."""

    features: Tensor
    prompt: Prompt


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


def write_subject(path: Path, tokens: SubjectTokens, header: dict[str, str]) -> None:
    rows = torch.tensor(tokens.prompt.identifier_rows, dtype=torch.int64)
    tensors = {"features": tokens.features, "prompt": tokens.prompt.features, "identifier_rows": rows}
    write_tensors(path, tensors, header)


def read_subject(path: Path, expected: dict[str, str]) -> SubjectTokens:
    tensors = read_tensors(path, expected)
    prompt = Prompt(tensors["prompt"], tuple(tensors["identifier_rows"].tolist()))
    return SubjectTokens(tensors["features"], prompt)


def write_prior(path: Path, prior: ClassPrior, header: dict[str, str]) -> None:
    """Bits are packed eight to a byte."""
    import numpy as np

    packed = torch.from_numpy(np.packbits(prior.bits.numpy(), axis=-1))
    tensors = {"bits": packed, "margins": prior.margins, "features": prior.features}
    if prior.zeros is not None:
        tensors["zeros"] = prior.zeros
    write_tensors(path, tensors, header)


def read_prior(path: Path, expected: dict[str, str]) -> ClassPrior:
    import numpy as np

    tensors = read_tensors(path, expected)
    width = tensors["margins"].shape[-1]
    bits = torch.from_numpy(np.unpackbits(tensors["bits"].numpy(), axis=-1, count=width)).bool()
    return ClassPrior(bits, tensors["margins"], tensors.get("zeros"), tensors["features"])
