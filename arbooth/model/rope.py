"""Two-dimensional rotary position embedding over a scale schedule.

Shape suffixes: L tokens, E channels of one head, H heads, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arbooth.model.schedule import Schedule


def positions(schedule: Schedule) -> Tensor:
    """Row and column of every token on the schedule's reference grid: [L, 2], integers."""
    rows, columns = schedule.reference
    grids = []
    for h, w in schedule.maps:
        y = torch.round(torch.arange(h, dtype=torch.float64) * rows / h)
        x = torch.round(torch.arange(w, dtype=torch.float64) * columns / w)
        grids.append(torch.cartesian_prod(y, x).reshape(h * w, 2))
    return torch.cat(grids).long()


def rotary_table(schedule: Schedule, head_width: int, base: float = 10000.0) -> Tensor:
    """Cosines and sines of every token's angles: [2, L, E/2], float32.

    The first half of the pairs turns with the row, the second with the column. Made in float32, as
    the released models do, whatever type the network computes in.
    """
    if head_width % 4:
        raise ValueError(f"2-D rotary embedding needs a head width divisible by 4, got {head_width}")
    axis = head_width // 2
    frequencies = 1.0 / base ** (torch.arange(0, axis, 2, dtype=torch.float32) / axis)
    angles = positions(schedule).float()[:, :, None] * frequencies  # [L, 2, E/4]
    angles = angles.flatten(1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x_BHLE: Tensor, table: Tensor) -> Tensor:
    """Turn interleaved channel pairs (2i, 2i+1) of queries or keys by their token's angles."""
    cos, sin = table.to(x_BHLE.dtype)
    even, odd = x_BHLE.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
