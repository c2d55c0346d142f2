"""Prior caches: class samples with the teacher's logits, and what they were made with in the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from arbooth.data.tensors import read_tensors, write_tensors
from arbooth.method.prior import ClassPrior


def write_prior(path: Path, prior: ClassPrior, header: dict[str, str]) -> None:
    """Bits are packed eight to a byte."""
    packed = torch.from_numpy(np.packbits(prior.bits.numpy(), axis=-1))
    tensors = {"bits": packed, "margins": prior.margins, "features": prior.features}
    if prior.zeros is not None:
        tensors["zeros"] = prior.zeros
    write_tensors(path, tensors, header)


def read_prior(path: Path, expected: dict[str, str]) -> ClassPrior:
    tensors = read_tensors(path, expected)
    width = tensors["margins"].shape[-1]
    bits = torch.from_numpy(np.unpackbits(tensors["bits"].numpy(), axis=-1, count=width)).bool()
    return ClassPrior(bits, tensors["margins"], tensors.get("zeros"), tensors["features"])
