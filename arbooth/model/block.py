"""The block of the transformer and its layers (Han et al., 2024, section 3).

Shape suffixes: B batch, L tokens of the schedule, T text tokens (padded), C width, F text width, H heads, E channels of
one head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention

from arbooth.model.attention import KeyValueCache, block_causal_attention
from arbooth.model.config import TransformerConfig
from arbooth.model.rope import rotate
from arbooth.model.schedule import Schedule

EPS = 1e-6


@dataclass
class Condition:
    """What the blocks read of a prompt: pooled vector [B,1,C], memory [B,T,C], mask, adaLN, head."""

    start: Tensor
    memory: Tensor
    mask: Tensor | None
    modulation: tuple[Tensor, ...]
    head: tuple[Tensor, Tensor]

    def first(self, batch: int) -> Condition:
        """Of the first `batch` prompts alone."""
        mask = None if self.mask is None else self.mask[:batch]
        shared = tuple(part[:batch] for part in self.modulation)
        scale, shift = (part[:batch] for part in self.head)
        return Condition(self.start[:batch], self.memory[:batch], mask, shared, (scale, shift))


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 or better."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
        return (scaled * self.weight).to(x.dtype)


def _split_heads(x_BLC: Tensor, heads: int) -> Tensor:
    return x_BLC.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join_heads(x_BHLE: Tensor) -> Tensor:
    return x_BHLE.transpose(1, 2).flatten(2)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


class TextPooling(nn.Module):
    """Attention pooling of a prompt with one learned query per head: [B,T,F] -> [B,C]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.pooling_heads
        self.query = nn.Parameter(torch.zeros(1, self.heads, config.width // self.heads))
        self.key_value = nn.Linear(config.text_width, 2 * config.width, bias=False)
        self.value_bias = nn.Parameter(torch.zeros(config.width))
        self.output = nn.Linear(config.width, config.width)

    def forward(self, text_BTF: Tensor, mask: Tensor | None) -> Tensor:
        key, value = self.key_value(text_BTF).chunk(2, dim=-1)
        key, value = _split_heads(key, self.heads), _split_heads(value + self.value_bias, self.heads)
        query = self.query[:, :, None].to(key.dtype).expand(len(text_BTF), -1, -1, -1)
        pooled = scaled_dot_product_attention(query, key, value.to(key.dtype), attn_mask=mask)
        return self.output(_join_heads(pooled)[:, 0])


class SelfAttention(nn.Module):
    """Cosine self-attention with a learned temperature per head and rotary positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.width, 3 * config.width, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(config.width))
        self.value_bias = nn.Parameter(torch.zeros(config.width))
        self.log_temperature = nn.Parameter(torch.full((1, config.heads, 1, 1), math.log(4.0)))
        self.output = nn.Linear(config.width, config.width)

    def forward(
        self, x_BLC: Tensor, rope: Tensor, schedule: Schedule, cache: KeyValueCache | None, backend: str
    ) -> Tensor:
        query, key, value = self.query_key_value(x_BLC).chunk(3, dim=-1)
        query = _split_heads(query + self.query_bias, self.heads)
        key, value = _split_heads(key, self.heads), _split_heads(value + self.value_bias, self.heads)
        temperature = self.log_temperature.clamp(max=math.log(100.0)).exp()
        query = rotate(F.normalize(query, dim=-1) * temperature, rope)
        key = rotate(F.normalize(key, dim=-1), rope)
        # Under autocast the biases above promote to float32; attention itself runs in the matmul type.
        query, key, value = (part.to(matmul_type(part)) for part in (query, key, value))
        if cache is None:
            mixed = block_causal_attention(query, key, value, schedule, backend)
        else:
            mixed = scaled_dot_product_attention(query, *cache.append(key, value), scale=1.0)
        return self.output(_join_heads(mixed))


class CrossAttention(nn.Module):
    """Attention from picture tokens to the text memory [B,T,C]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width, bias=False)
        self.value_bias = nn.Parameter(torch.zeros(config.width))
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x_BLC: Tensor, memory_BTC: Tensor, mask: Tensor | None) -> Tensor:
        key, value = self.key_value(memory_BTC).chunk(2, dim=-1)
        query = _split_heads(self.query(x_BLC), self.heads)
        key, value = _split_heads(key, self.heads), _split_heads(value + self.value_bias, self.heads)
        mixed = scaled_dot_product_attention(query, key, value.to(key.dtype), attn_mask=mask)
        return self.output(_join_heads(mixed))


class FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.hidden)
        self.contract = nn.Linear(config.hidden, config.width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x_BLC), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm block: self-attention and feed-forward under shared adaLN, cross-attention between."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 1, 6, config.width))
        self.self_attention = SelfAttention(config)
        self.cross_norm = nn.LayerNorm(config.width, eps=EPS)
        self.cross_attention = CrossAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x_BLC: Tensor,
        condition: Condition,
        rope: Tensor,
        schedule: Schedule,
        cache: KeyValueCache | None = None,
        backend: str = "scales",
    ) -> Tensor:
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (
            shared + block for shared, block in zip(condition.modulation, self.modulation.unbind(2))
        )
        modulated = norm(x_BLC) * (1 + scale1) + shift1
        x_BLC = x_BLC + gamma1 * self.self_attention(modulated, rope, schedule, cache, backend)
        x_BLC = x_BLC + self.cross_attention(self.cross_norm(x_BLC), condition.memory, condition.mask)
        modulated = norm(x_BLC) * (1 + scale2) + shift2
        return x_BLC + gamma2 * self.feed_forward(modulated)


def matmul_type(x: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
