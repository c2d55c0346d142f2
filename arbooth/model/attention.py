"""Attention over scales: block-causal for training, cached for sampling, padded for text.

Shape suffixes: B batch, H heads, L tokens, E channels of one head, T text tokens.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from arbooth.model.moving import moved
from arbooth.model.schedule import Schedule

BACKENDS = ("scales", "flex")


def block_causal_attention(
    q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, schedule: Schedule, backend: str = "scales"
) -> Tensor:
    """Every token attends to its own scale and all coarser ones; softmax scale 1. Returns [B,H,L,E].

    `scales` runs one attention per scale over a prefix of the keys: no mask exists at all, so memory
    is linear in L with any fused kernel. `flex` hands a block mask to FlexAttention, which compiles
    for CUDA.

    Raises:
        ValueError: the sequence is not as long as the schedule, or the backend is unknown.
    """
    if q_BHLE.shape[2] != schedule.length:
        raise ValueError(f"{q_BHLE.shape[2]} tokens do not fit a schedule of {schedule.length}")
    if backend == "flex":
        return _flex(q_BHLE, k_BHLE, v_BHLE, schedule)
    if backend != "scales":
        raise ValueError(f"unknown attention backend {backend!r}: one of {', '.join(BACKENDS)}")
    parts = [
        scaled_dot_product_attention(q_BHLE[:, :, start:end], k_BHLE[:, :, :end], v_BHLE[:, :, :end], scale=1.0)
        for start, end in schedule.spans
    ]
    return torch.cat(parts, dim=2)


@lru_cache(maxsize=8)
def _block_mask(schedule: Schedule, device: str):
    from torch.nn.attention.flex_attention import create_block_mask

    sizes = torch.tensor([end - start for start, end in schedule.spans])
    scale_of = torch.arange(len(schedule)).repeat_interleave(sizes).to(device)

    def sees(_batch, _head, query, key):
        return scale_of[query] >= scale_of[key]

    return create_block_mask(sees, None, None, schedule.length, schedule.length, device=device)


@lru_cache(maxsize=1)
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex(q: Tensor, k: Tensor, v: Tensor, schedule: Schedule) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    kernel = _compiled_flex() if q.is_cuda else flex_attention
    return kernel(q, k, v, block_mask=_block_mask(schedule, str(q.device)), scale=1.0)


def text_mask(lengths: list[int], device: torch.device | str = "cpu") -> Tensor | None:
    """Boolean [B,1,1,T] that hides padding, or None where no sample is padded."""
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return moved(mask[:, None, None], device)


class KeyValueCache:
    """Keys and values of one layer, allocated once for a whole schedule: 2 x [B,H,L,E]."""

    def __init__(self, shape: tuple[int, int, int, int], like: Tensor) -> None:
        self.keys = like.new_empty(shape)
        self.values = like.new_empty(shape)
        self.end = 0

    def append(self, k_BHLE: Tensor, v_BHLE: Tensor) -> tuple[Tensor, Tensor]:
        """Store one scale's keys and values; returns views of everything stored so far."""
        start, self.end = self.end, self.end + k_BHLE.shape[2]
        self.keys[:, :, start : self.end] = k_BHLE
        self.values[:, :, start : self.end] = v_BHLE
        return self.keys[:, :, : self.end], self.values[:, :, : self.end]

    def keep(self, batch: int) -> None:
        """Go on with the first `batch` samples alone."""
        self.keys, self.values = self.keys[:batch], self.values[:batch]
