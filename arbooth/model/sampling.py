"""Scale-by-scale sampling with guidance, temperature, top-k and top-p, one cached pass per scale.

Shape suffixes: B pictures, N tokens of one scale, P bits of a token, D bits of the tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

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
        prompt_guidance: how far a subject's picture is moved along what the same network sees between the prompt without
            the identifier and its class alone, one number or one per scale; 0 is not at all and costs nothing.
        token_share: share of a scale's tokens that the network computes, one number or one per scale, in (0, 1]; see
            `Transformer.step`.
    """

    guidance: float | tuple[float, ...]
    temperature: float | tuple[float, ...]
    top_k: int
    top_p: float
    token_share: float | tuple[float, ...] = 1.0
    prompt_guidance: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        shares = self.token_share if isinstance(self.token_share, tuple) else (self.token_share,)
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"token_share must be in (0, 1], got {self.token_share}")
        temperatures = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        for name in ("guidance", "prompt_guidance", "temperature"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not values or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} must be finite, got {value}")
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
    plain: Text | None = None,
    keep_logits: bool = False,
) -> Samples:
    """Paint one picture per prompt.

    Args:
        text: B prompts, already on the network's device.
        generators: one per picture (on the CPU); None only for greedy sampling.
        plain: for prompt guidance 2B prompts, those without their identifier and then their classes alone; without it
            there is none.
        keep_logits: also return each bit's two logits after guidance, before temperature.

    Raises:
        ValueError: numbers per scale that do not fit the schedule; no generators where needed.
    """
    schedule = quantizer.schedule
    guidance = spread_over_scales(sampling.guidance, len(schedule), "guidance")
    toward = spread_over_scales(sampling.prompt_guidance, len(schedule), "prompt_guidance")
    temperature = spread_over_scales(sampling.temperature, len(schedule), "temperature")
    shares = spread_over_scales(sampling.token_share, len(schedule), "token_share")

    def asked_from(scale: int) -> int:
        """Rows a picture from a scale on: prompt, no text, plain prompt, class."""
        if plain is not None and any(toward[scale:]):
            return 4
        return 2 if any(g != 1 for g in guidance[scale:]) else 1

    batch, rows = len(text.lengths), asked_from(0)
    condition = transformer.condition(_rows(transformer, text, plain, rows))
    caches = transformer.caches(batch * rows, schedule)
    dtype = torch.promote_types(transformer.dtype, torch.float32)
    canvas = torch.zeros(batch, quantizer.bits, *quantizer.maps[-1], dtype=dtype, device=transformer.device)
    all_bits, all_logits, inputs, added = [], [], None, None
    for scale in range(len(schedule)):
        if asked_from(scale) < rows:
            rows = asked_from(scale)
            condition, added = condition.first(rows * batch), added and added.first(rows * batch)
            for cache in caches:
                cache.keep(rows * batch)
        if inputs is not None:
            inputs = inputs.repeat(rows, 1, 1)
        logits, new = transformer.step(inputs, condition, scale, schedule, caches, share=shares[scale], added=added)
        added = new if shares[scale] == 1 or added is None else added
        logits, *others = logits.chunk(rows)
        if others:
            logits = guidance[scale] * logits + (1 - guidance[scale]) * others[0]
        if len(others) == 3:
            logits = logits + toward[scale] * (others[1] - others[2])
        margin = logits[..., 1] - logits[..., 0]
        bits = draw_bits(margin / temperature[scale], sampling, generators)
        canvas = quantizer.add(canvas, quantizer.code(quantizer.to_map(bits, scale), dtype))
        if scale + 1 < len(schedule):
            inputs = quantizer.next_inputs(canvas, scale + 1)
        all_bits.append(bits)
        if keep_logits:
            all_logits.append(logits)
    return Samples(torch.cat(all_bits, 1), canvas, torch.cat(all_logits, 1) if keep_logits else None)


def _rows(transformer: Transformer, text: Text, plain: Text | None, rows: int) -> Text:
    """The prompts, then "no text" of the same lengths, then the plain prompts and classes, as one batch."""
    if rows == 1:
        return text
    nothing = transformer.unconditional(text)
    parts = [text, nothing] if rows == 2 or plain is None else [text, nothing, plain]
    longest = max(part.features.shape[1] for part in parts)
    padded = [F.pad(part.features, (0, 0, 0, longest - part.features.shape[1])) for part in parts]
    return Text(torch.cat(padded), [length for part in parts for length in part.lengths])
