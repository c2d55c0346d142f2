"""Token caches: what fine-tuning reads of a subject, with what it was made with in the header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data.tensors import Wanted, check_tensors, read_tensors, write_tensors
from arbooth.errors import InputError
from arbooth.model.quantizer import Quantizer
from arbooth.model.text import Prompt


@dataclass
class SubjectTokens:
    """What fine-tuning reads of a subject: raw features [P,D,H,W] and its training prompt."""

    features: Tensor
    prompt: Prompt


def write_subject(path: Path, tokens: SubjectTokens, header: dict[str, str]) -> None:
    rows = torch.tensor(tokens.prompt.identifier_rows, dtype=torch.int64)
    tensors = {"features": tokens.features, "prompt": tokens.prompt.features, "identifier_rows": rows}
    write_tensors(path, tensors, header)


def read_subject(path: Path, expected: dict[str, str], quantizer: Quantizer) -> SubjectTokens:
    """Raises InputError: missing, damaged, stale, or not what this quantiser reads."""
    tensors = read_tensors(path, expected)
    wanted: dict[str, Wanted] = {
        "features": (torch.float32, (None, quantizer.bits, *quantizer.maps[-1])),
        "prompt": (torch.float32, (None, None)),
        "identifier_rows": (torch.int64, (None,)),
    }
    check_tensors(path, tensors, wanted)
    rows = tensors["identifier_rows"].tolist()
    if not all(0 <= row < len(tensors["prompt"]) for row in rows):
        raise InputError(f"{path} places the identifier outside its prompt: delete it and run `dvc repro`")
    return SubjectTokens(tensors["features"], Prompt(tensors["prompt"], tuple(rows)))
