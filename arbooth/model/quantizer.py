"""Binary spherical quantisation of a feature map, residual over scales, and its self-correction.

Shape suffixes: B batch, D bits of the tokenizer, H and W the feature map, h and w one token map;
L tokens of the schedule, P bits of a token (D, or 4D with spatial patchify).
Source: Infinity (Han et al., 2024), sections 3.2 and 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from arbooth.model.schedule import Map, Schedule


@dataclass(frozen=True)
class SelfCorrection:
    """Bit flips during training: strengths {0, 0.01, ..., `strength`} on the first `scales` scales."""

    strength: float = 0.3
    scales: int = 13


@dataclass
class Tokens:
    """What the transformer reads and must say: inputs [B,L-1,P], target bits [B,L,P] (bool)."""

    inputs: Tensor
    bits: Tensor


class Quantizer:
    """Turns raw features into bits and back, for one schedule.

    Args:
        schedule: the transformer's token maps.
        bits: D, channels of the tokenizer.
        patchify: fold 2x2 codes into one token of 4D bits; the feature map is then twice as large.
    """

    def __init__(self, schedule: Schedule, bits: int, patchify: bool = False) -> None:
        self.schedule, self.bits, self.patchify = schedule, bits, patchify
        self.maps = (schedule.doubled() if patchify else schedule).maps

    @property
    def token_bits(self) -> int:
        return self.bits * (4 if self.patchify else 1)

    def code(self, bits_BDhw: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Points of the sphere: bit 1 is +1/sqrt(D), bit 0 is -1/sqrt(D)."""
        # The value of 1/sqrt(D) is float32 in the released models, in whatever type they compute.
        unit = torch.full((), 1 / math.sqrt(self.bits), dtype=torch.float32, device=bits_BDhw.device).to(dtype)
        return torch.where(bits_BDhw, unit, -unit)

    def add(self, canvas_BDHW: Tensor, code_BDhw: Tensor) -> Tensor:
        """The running sum with one more scale's code, stretched to the full map."""
        return canvas_BDHW + _stretch(code_BDhw, self.maps[-1])

    def next_inputs(self, canvas_BDHW: Tensor, scale: int) -> Tensor:
        """What the tokens of `scale` read of the sum of the coarser ones: [B, h*w, P]."""
        return self.to_tokens(_stretch(canvas_BDHW, self.maps[scale]))

    def to_tokens(self, x_BDhw: Tensor) -> Tensor:
        if self.patchify:
            x_BDhw = F.pixel_unshuffle(x_BDhw, 2)
        return x_BDhw.flatten(2).transpose(1, 2)

    def to_map(self, tokens_BNP: Tensor, scale: int) -> Tensor:
        """Tokens of one scale back to their map [B,D,h,w]."""
        h, w = self.schedule.maps[scale]
        x = tokens_BNP.transpose(1, 2).unflatten(2, (h, w))
        return F.pixel_shuffle(x, 2) if self.patchify else x

    def encode(
        self,
        features_BDHW: Tensor,
        *,
        correction: SelfCorrection | None = None,
        generator: torch.Generator | None = None,
        flips_BLP: Tensor | None = None,
    ) -> Tokens:
        """Bits of every scale, and the inputs that a teacher-forced transformer reads.

        With self-correction the inputs are built from flipped bits while the targets stay
        unflipped, so the finer targets learn to undo the errors of the coarser ones.

        Args:
            features_BDHW: raw features of the tokenizer's encoder, float32 or better.
            correction: draw flips with `generator`, where it lies: on the CPU a seed means the same everywhere.
            flips_BLP: flips to use instead of drawn ones (bool).

        Raises:
            ValueError: the features are not of the schedule's last map and D channels.
        """
        batch, bits, *full = features_BDHW.shape
        if bits != self.bits or tuple(full) != self.maps[-1]:
            raise ValueError(
                f"features of shape {tuple(features_BDHW.shape)} do not fit {self.bits} bits on a map of {self.maps[-1]}"
            )
        if flips_BLP is None and correction is not None:
            flips_BLP = self.draw_flips(batch, correction, generator).to(features_BDHW.device)
        canvas = torch.zeros_like(features_BDHW)
        inputs, targets = [], []
        for scale, ((start, end), size) in enumerate(zip(self.schedule.spans, self.maps)):
            if scale:
                inputs.append(self.next_inputs(canvas, scale))
            residual = features_BDHW - canvas
            if size != self.maps[-1]:
                residual = F.interpolate(residual, size=size, mode="area")
            bits_map = residual > 0
            targets.append(self.to_tokens(bits_map))
            if flips_BLP is not None:
                bits_map = bits_map ^ self.to_map(flips_BLP[:, start:end].bool(), scale)
            canvas = self.add(canvas, self.code(bits_map, canvas.dtype))
        joined = torch.cat(inputs, dim=1) if inputs else features_BDHW.new_empty(batch, 0, self.token_bits)
        return Tokens(joined, torch.cat(targets, dim=1))

    def draw_flips(self, batch: int, correction: SelfCorrection, generator: torch.Generator | None) -> Tensor:
        """Flips [B,L,P]: one strength a sample and scale, then every bit on its own."""
        levels, device = round(correction.strength * 100) + 1, generator.device if generator else "cpu"
        flips = torch.zeros(batch, self.schedule.length, self.token_bits, dtype=torch.bool, device=device)
        for start, end in self.schedule.spans[: correction.scales]:
            strength = torch.randint(levels, (batch, 1, 1), generator=generator, device=device) / 100
            chance = torch.rand(batch, end - start, self.token_bits, generator=generator, device=device)
            flips[:, start:end] = chance < strength
        return flips

    def inputs_from_bits(self, bits_BLP: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Teacher-forcing inputs [B,L-1,P] and the sum of all codes [B,D,H,W] of given bits."""
        canvas = torch.zeros(len(bits_BLP), self.bits, *self.maps[-1], dtype=dtype, device=bits_BLP.device)
        inputs = []
        for scale, (start, end) in enumerate(self.schedule.spans):
            if scale:
                inputs.append(self.next_inputs(canvas, scale))
            canvas = self.add(canvas, self.code(self.to_map(bits_BLP[:, start:end].bool(), scale), dtype))
        if not inputs:
            return canvas.new_empty(len(bits_BLP), 0, self.token_bits), canvas
        return torch.cat(inputs, dim=1), canvas


def _stretch(x: Tensor, size: Map) -> Tensor:
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size=size, mode="bilinear")
