"""From the CPU to the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on the device; the copy takes its turn behind what the device is at, and nobody waits."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
