"""Sizes of the networks; torch is not needed to know them."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a network; `bits` counts the bits of one token (4d with spatial patchify)."""

    depth: int
    width: int
    heads: int
    bits: int
    text_width: int
    chunks: int = 1
    mlp_ratio: float = 4.0
    level_embedding_first_only: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        if self.depth % self.chunks:
            raise ValueError(f"depth {self.depth} is not divisible by {self.chunks} chunks")
        if self.width % self.pooling_heads:
            raise ValueError(f"width {self.width} is not divisible by {self.pooling_heads} pooling heads")

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layers, rounded to 256 as in the release."""
        return round(self.mlp_ratio * self.width / 256) * 256

    @property
    def pooling_heads(self) -> int:
        return max(1, self.text_width // (64 if self.width > 4096 else 128))

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes; the stride is 2 ** (levels - 1). Official: base 128, multipliers (1,2,4,4,4), 2 blocks.

    `groups` are those of the normalisations; None is the official rule, 32 or else 24. A narrow
    network needs fewer: with one channel a group it could not tell how strong a signal is.
    """

    bits: int
    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4, 4)
    blocks: int = 2
    groups: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))

    @property
    def stride(self) -> int:
        return 2 ** (len(self.multipliers) - 1)

    def as_dict(self) -> dict:
        return asdict(self)


# The networks that are published, by their names there: what is known of them without their files.
RELEASED = {
    "infinity-125m": (TransformerConfig(12, 768, 8, 16, 2048, chunks=4), AutoencoderConfig(16)),
    "infinity-2b": (TransformerConfig(32, 2048, 16, 32, 2048, chunks=8), AutoencoderConfig(32)),
    "infinity-8b": (
        TransformerConfig(40, 3584, 28, 56, 2048, chunks=8),
        AutoencoderConfig(14, multipliers=(1, 2, 4, 4)),
    ),
}
