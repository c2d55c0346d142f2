"""Scale-by-scale sampling with guidance, temperature, top-k and top-p, one cached pass per scale.

Shape suffixes: B pictures, N tokens of one scale, P bits of a token, D bits of the tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arbooth.model.block import Condition
from arbooth.model.moving import moved
from arbooth.model.quantizer import Quantizer
from arbooth.model.transformer import Text, Transformer


@dataclass(frozen=True)
class Sampling:
    """How bits are drawn.

    Args:
        guidance: classifier-free guidance, one number or one per scale; 1 is none.
        temperature: divides the logits, one number or one per scale; above 0.
        top_k: 1 is greedy; with two outcomes any larger number, or 0, keeps both.
        top_p: the weaker outcome is dropped where the stronger alone reaches it, in (0, 1].
        token_share: share of a scale's tokens that the network computes, one number or one per scale, in (0, 1]; see
            `Transformer.step`.
    """

    guidance: float | tuple[float, ...]
    temperature: float | tuple[float, ...]
    top_k: int
    top_p: float
    token_share: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        shares = self.token_share if isinstance(self.token_share, tuple) else (self.token_share,)
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"token_share must be in (0, 1], got {self.token_share}")
        temperatures = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        guidances = self.guidance if isinstance(self.guidance, tuple) else (self.guidance,)
        if not temperatures or not guidances or not all(map(math.isfinite, (*temperatures, *guidances))):
            raise ValueError(f"guidance and temperature must be finite, got {self.guidance} and {self.temperature}")
        if min(temperatures) <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}; use top_k=1 for greedy")


@dataclass
class Samples:
    """Drawn bits [B,L,P], the sum of their codes [B,D,H,W], and (on request) the logits [B,L,P,2]."""

    bits: Tensor
    codes: Tensor
    logits: Tensor | None


def spread_over_scales(value: float | Sequence[float], scales: int, name: str) -> list[float]:
    """One number for all scales, or a list of as many as there are scales."""
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * scales
    if len(values) != scales:
        raise ValueError(f"{name} has {len(values)} values for {scales} scales")
    return values


def draw_bits(margin_BNP: Tensor, sampling: Sampling, generators: list[torch.Generator] | None) -> Tensor:
    """Bits from logit differences (bit 1 less bit 0, tempered): greedy, or one draw from each picture's generator.

    Random numbers are made on the CPU, so that a seed means the same on every device.
    """
    if sampling.top_k == 1:
        return margin_BNP > 0
    if generators is None:
        raise ValueError("sampling needs one generator per picture; use top_k=1 for greedy")
    chance = torch.sigmoid(margin_BNP.float())
    stronger = torch.maximum(chance, 1 - chance)
    chance = torch.where(stronger >= sampling.top_p, (chance > 0.5).float(), chance)
    noise = torch.stack([torch.rand(margin_BNP.shape[1:], generator=g) for g in generators])
    return moved(noise, chance.device) < chance


@torch.no_grad()
def sample(
    transformer: Transformer,
    quantizer: Quantizer,
    text: Text,
    sampling: Sampling,
    generators: list[torch.Generator] | None = None,
    *,
    keep_logits: bool = False,
) -> Samples:
    """Paint one picture per prompt.

    Args:
        text: B prompts, already on the network's device.
        generators: one per picture (on the CPU); None only for greedy sampling.
        keep_logits: also return each bit's two logits after guidance, before temperature.

    Raises:
        ValueError: numbers per scale that do not fit the schedule; no generators where needed.
    """
    schedule = quantizer.schedule
    guidance = spread_over_scales(sampling.guidance, len(schedule), "guidance")
    temperature = spread_over_scales(sampling.temperature, len(schedule), "temperature")
    shares = spread_over_scales(sampling.token_share, len(schedule), "token_share")
    batch, guided = len(text.lengths), any(g != 1 for g in guidance)
    condition = _guided_condition(transformer, text) if guided else transformer.condition(text)
    caches = transformer.caches(batch * (2 if guided else 1), schedule)
    dtype = torch.promote_types(transformer.dtype, torch.float32)
    canvas = torch.zeros(batch, quantizer.bits, *quantizer.maps[-1], dtype=dtype, device=transformer.device)
    all_bits, all_logits, inputs, added = [], [], None, None
    for scale in range(len(schedule)):
        if guided and all(g == 1 for g in guidance[scale:]):  # from here on the half without text is not asked
            guided, condition = False, condition.first(batch)
            for cache in caches:
                cache.keep(batch)
            added = added and added.first(batch)
        if inputs is not None and guided:
            inputs = inputs.repeat(2, 1, 1)
        logits, new = transformer.step(inputs, condition, scale, schedule, caches, share=shares[scale], added=added)
        added = new if shares[scale] == 1 or added is None else added
        if guided:
            with_text, without = logits.chunk(2)
            logits = guidance[scale] * with_text + (1 - guidance[scale]) * without
        margin = logits[..., 1] - logits[..., 0]
        bits = draw_bits(margin / temperature[scale], sampling, generators)
        canvas = quantizer.add(canvas, quantizer.code(quantizer.to_map(bits, scale), dtype))
        if scale + 1 < len(schedule):
            inputs = quantizer.next_inputs(canvas, scale + 1)
        all_bits.append(bits)
        if keep_logits:
            all_logits.append(logits)
    return Samples(torch.cat(all_bits, 1), canvas, torch.cat(all_logits, 1) if keep_logits else None)


def _guided_condition(transformer: Transformer, text: Text) -> Condition:
    """Conditions of the prompts, then of "no text" of the same lengths, as one batch."""
    nothing = transformer.unconditional(text)
    both = Text(torch.cat([text.features, nothing.features]), text.lengths * 2)
    return transformer.condition(both)
