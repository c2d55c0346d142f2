"""Prior caches: class samples with the teacher's logits, and what they were made with in the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from arbooth.data.tensors import Wanted, check_tensors, read_tensors, write_tensors
from arbooth.method.prior import ClassPrior
from arbooth.model.quantizer import Quantizer


def write_prior(path: Path, prior: ClassPrior, header: dict[str, str]) -> None:
    """Bits are packed eight to a byte."""
    packed = torch.from_numpy(np.packbits(prior.bits.numpy(), axis=-1))
    tensors = {"bits": packed, "margins": prior.margins, "features": prior.features}
    if prior.zeros is not None:
        tensors["zeros"] = prior.zeros
    write_tensors(path, tensors, header)


def read_prior(path: Path, expected: dict[str, str], quantizer: Quantizer) -> ClassPrior:
    """Raises InputError: missing, damaged, stale, or not what this quantiser reads."""
    tensors = read_tensors(path, expected)
    width, length = quantizer.token_bits, quantizer.schedule.length
    samples = len(tensors["bits"]) if "bits" in tensors and tensors["bits"].ndim else None
    logits: Wanted = (torch.float16, (samples, length, width))
    wanted: dict[str, Wanted] = {"bits": (torch.uint8, (None, length, (width + 7) // 8)), "margins": logits}
    wanted["features"] = (torch.float32, (None, None))
    check_tensors(path, tensors, wanted | ({"zeros": logits} if "zeros" in tensors else {}))
    bits = torch.from_numpy(np.unpackbits(tensors["bits"].numpy(), axis=-1, count=width)).bool()
    return ClassPrior(bits, tensors["margins"], tensors.get("zeros"), tensors["features"])
