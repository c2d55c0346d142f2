"""The visual autoregressive transformer of the Infinity family (Han et al., 2024, section 3).

Shape suffixes: B batch, L tokens of the schedule, T text tokens (padded), C width, F text width,
D bits of a token, H heads, E channels of one head.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from arbooth.model.attention import KeyValueCache, text_mask
from arbooth.model.block import Block, Condition, RMSNorm, TextPooling, matmul_type, norm
from arbooth.model.config import TransformerConfig
from arbooth.model.rope import rotary_table
from arbooth.model.schedule import Schedule

MAX_TEXT = 512
MAX_SCALES = 15
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Text:
    """A batch of prompts: features padded to [B,T,F] and each prompt's true length."""

    features: Tensor
    lengths: list[int]

    @classmethod
    def stack(cls, prompts: list[Tensor]) -> Text:
        """Pad prompts [T_i, F] to one batch."""
        return cls(nn.utils.rnn.pad_sequence(prompts, batch_first=True), [len(p) for p in prompts])


@dataclass
class Added:
    """What the blocks added to the tokens of one scale [B,h*w,C], and its map (h, w)."""

    change: Tensor
    map: tuple[int, int]

    def first(self, batch: int) -> Added:
        return Added(self.change[:batch], self.map)

    def stretched(self, size: tuple[int, int]) -> Tensor:
        """Over a finer map, [B,h*w,C]."""
        planes = self.change.transpose(1, 2).unflatten(2, self.map)
        return F.interpolate(planes, size=size, mode="bilinear").flatten(2).transpose(1, 2)


def _pivotal(x_BLC: Tensor, share: float) -> Tensor:
    """The tokens farthest from their scale's mean, [B,K], in order."""
    distance = (x_BLC - x_BLC.mean(1, keepdim=True)).norm(dim=-1)
    return distance.topk(max(1, round(share * x_BLC.shape[1])), dim=1).indices.sort(dim=1).values


def _in_compute_type(method):
    """Run linear layers and attention in the network's compute type; norms and softmax stay float32."""

    @functools.wraps(method)
    def run(self, *arguments, **named):
        # No copies of weights are kept: each is used once a pass, and trained ones would lie there twice.
        options = {"enabled": self.compute != "float32", "cache_enabled": False}
        with torch.autocast(self.device.type, DTYPES[self.compute], **options):
            return method(self, *arguments, **named)

    return run


class Transformer(nn.Module):
    """Text features and coarser scales in, two logits for each bit of the next scale out.

    Args:
        config: sizes.
        compute: what matrices are multiplied in, float32 (or wider parameters' own type) or bfloat16;
            the residual stream, adaLN and the head stay in float32.

    Raises:
        ValueError: an unknown compute type.
    """

    def __init__(self, config: TransformerConfig, compute: str = "float32") -> None:
        super().__init__()
        if compute not in DTYPES:
            raise ValueError(f"unknown compute type {compute!r}: one of {', '.join(DTYPES)}")
        self.config, self.compute = config, compute
        width = config.width
        self.no_text = nn.Parameter(torch.zeros(MAX_TEXT, config.text_width))
        self.text_norm = RMSNorm(config.text_width)
        self.text_pooling = TextPooling(config)
        self.text_memory = nn.Sequential(
            nn.Linear(config.text_width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        self.level = nn.Embedding(MAX_SCALES, width)
        self.token = nn.Linear(config.bits, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, 2 * config.bits)
        self._tables: dict[tuple, Tensor] = {}

    def compile_blocks(self) -> None:
        """Have torch compile the block at its first use: one for all, since they differ in nothing but weights."""
        for block in self.blocks:
            block.compile()

    @property
    def device(self) -> torch.device:
        return self.start.device

    @property
    def dtype(self) -> torch.dtype:
        return self.start.dtype

    def unconditional(self, text: Text) -> Text:
        """The learned stand-in for "no text", as long as each prompt: features [B,T,F].

        Raises:
            ValueError: as for `condition`.
        """
        self._check(text)
        longest = text.features.shape[1]
        rows = self.no_text[:longest].to(text.features.dtype)
        return Text(rows.expand(len(text.lengths), -1, -1), text.lengths)

    @_in_compute_type
    def condition(self, text: Text) -> Condition:
        """Everything that depends on the prompt alone, computed once for all scales.

        Raises:
            ValueError: a prompt is empty or longer than 512 tokens, or of another encoder's width.
        """
        self._check(text)
        mask = text_mask(text.lengths, text.features.device)
        features = self.text_norm(text.features)
        pooled = self.text_pooling(features, mask).to(self._wide)[:, None]
        with self._full_precision():
            shared = self.modulation(F.silu(pooled)).unflatten(-1, (6, -1)).unbind(2)
            scale, shift = self.head_modulation(F.silu(pooled)).chunk(2, dim=-1)
        return Condition(pooled + self.start, self.text_memory(features), mask, shared, (scale, shift))

    @_in_compute_type
    def forward(
        self,
        text: Text,
        inputs_BLD: Tensor,
        schedule: Schedule,
        *,
        recompute: bool = False,
        backend: str = "scales",
    ) -> Tensor:
        """Teacher-forced logits for all scales at once.

        Args:
            text: prompts, [B,T,F].
            inputs_BLD: what each token after the first reads, [B, L-1, D].
            schedule: the token maps.
            recompute: activation checkpointing of every block (less memory, one more forward pass).
            backend: see `block_causal_attention`.

        Returns:
            [B, L, D, 2] logits of bit 0 and bit 1, float32 or better.
        """
        condition = self.condition(text)
        x = torch.cat([condition.start, self.token(inputs_BLD).to(condition.start.dtype)], dim=1)
        rope, levels = self.rope(schedule), self._levels(0, len(schedule), schedule)

        def run(block: nn.Module, x: Tensor) -> Tensor:
            return block(x, condition, rope, schedule, backend=backend)

        for index, block in enumerate(self.blocks):
            x = self._add_level(x, levels, index)
            x = checkpoint(run, block, x, use_reentrant=False) if recompute else run(block, x)
        return self._logits(x, condition)

    @_in_compute_type
    def step(
        self,
        x_BLD: Tensor | None,
        condition: Condition,
        scale: int,
        schedule: Schedule,
        caches: list,
        *,
        share: float = 1.0,
        added: Added | None = None,
    ) -> tuple[Tensor, Added]:
        """One scale of sampling: inputs [B,h*w,D] (None at the first) -> logits [B,h*w,D,2], and what the blocks added.

        Args:
            share: of the tokens that pass through the blocks: those that differ most from their scale's mean. For the
                others it is taken that the blocks add what they `added` there at a coarser scale (after FastVAR, Guo
                et al., 2025, which chooses anew in every layer).
        """
        start, end = schedule.spans[scale]
        x = condition.start if x_BLD is None else self.token(x_BLD).to(condition.start.dtype)
        rope, levels = self.rope(schedule)[:, start:end], self._levels(scale, scale + 1, schedule)
        before, kept = x, None
        if share < 1 and added is not None:
            kept = _pivotal(x, share)
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
            rope, levels = rope[:, kept][:, :, None], levels[:, : kept.shape[1]]
        for index, block in enumerate(self.blocks):
            x = self._add_level(x, levels, index)
            x = block(x, condition, rope, schedule, cache=caches[index])
        if kept is not None and added is not None:
            whole = before + added.stretched(schedule.maps[scale])
            x = whole.scatter(1, kept[..., None].expand(-1, -1, x.shape[-1]), x)
        return self._logits(x, condition), Added(x - before, schedule.maps[scale])

    @_in_compute_type
    def caches(self, batch: int, schedule: Schedule) -> list[KeyValueCache]:
        """Empty key/value caches for every block."""
        shape = (batch, self.config.heads, schedule.length, self.config.width // self.config.heads)
        like = torch.empty(0, dtype=matmul_type(self.start), device=self.device)
        return [KeyValueCache(shape, like) for _ in self.blocks]

    def rope(self, schedule: Schedule) -> Tensor:
        key = (schedule, self.device)
        if key not in self._tables:
            table = rotary_table(schedule, self.config.width // self.config.heads)
            self._tables[key] = table.to(self.device)
        return self._tables[key]

    def _check(self, text: Text) -> None:
        _, longest, width = text.features.shape
        if width != self.config.text_width:
            raise ValueError(f"text features are {width} wide, this network reads {self.config.text_width}")
        if not 0 < min(text.lengths) <= longest <= MAX_TEXT:
            raise ValueError(f"a prompt must have 1 to {MAX_TEXT} tokens, got lengths {text.lengths}")

    @property
    def _wide(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def _full_precision(self) -> torch.autocast:
        """The residual stream, adaLN and the head stay in float32 under bfloat16 autocast."""
        return torch.autocast(self.device.type, enabled=False, cache_enabled=False)

    def _levels(self, first: int, last: int, schedule: Schedule) -> Tensor:
        """Level embeddings of the tokens of some scales, [1,l,C]."""
        sizes = [end - start for start, end in schedule.spans[first:last]]
        return torch.cat([self.level.weight[k].expand(size, -1) for k, size in enumerate(sizes, first)])[None]

    def _add_level(self, x: Tensor, levels: Tensor, block: int) -> Tensor:
        per_chunk = self.config.depth // self.config.chunks
        every = self.config.depth if self.config.level_embedding_first_only else per_chunk
        return x + levels if block % every == 0 else x

    def _logits(self, x_BLC: Tensor, condition: Condition) -> Tensor:
        scale, shift = condition.head
        with self._full_precision():
            x = norm(x_BLC) * (1 + scale) + shift
            return self.head(x).unflatten(-1, (self.config.bits, 2))


def kept_type(name: str, tensor: Tensor, compute: str) -> torch.dtype:
    """Matrices inside the blocks take the compute type; biases, norms, embeddings, adaLN and head stay float32."""
    return DTYPES[compute] if name.startswith("blocks.") and tensor.ndim == 2 else torch.float32
