"""Token caches: what fine-tuning reads of a subject, with what it was made with in the header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data.tensors import read_tensors, write_tensors
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


def read_subject(path: Path, expected: dict[str, str]) -> SubjectTokens:
    tensors = read_tensors(path, expected)
    prompt = Prompt(tensors["prompt"], tuple(tensors["identifier_rows"].tolist()))
    return SubjectTokens(tensors["features"], prompt)
