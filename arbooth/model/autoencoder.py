"""The tokenizer's convolutional autoencoder: pixels in [-1, 1] to raw features and back.

Shape suffixes: B batch, D bits (channels of the features), H and W the feature map.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arbooth.model.config import AutoencoderConfig


def _norm(channels: int, groups: int | None) -> nn.GroupNorm:
    for count in (groups,) if groups else (32, 24):
        if channels % count == 0:
            return nn.GroupNorm(count, channels, eps=1e-6)
    raise ValueError(f"{channels} channels do not divide into {groups or '32 or 24'} groups")


class ResidualBlock(nn.Module):
    def __init__(self, inner: int, outer: int, groups: int | None) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inner, groups), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = _norm(outer, groups), nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.shortcut(x) + y


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.base * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3, config.base, 3, padding=1)
        self.levels = nn.ModuleList()
        for level, (inner, outer) in enumerate(zip([config.base, *widths], widths)):
            blocks = [ResidualBlock(inner if i == 0 else outer, outer, config.groups) for i in range(config.blocks)]
            last = level == len(widths) - 1
            self.levels.append(
                nn.ModuleDict(
                    {
                        "blocks": nn.ModuleList(blocks),
                        "resize": nn.Identity() if last else Downsample(outer),
                    }
                )
            )
        self.middle = nn.ModuleList(ResidualBlock(widths[-1], widths[-1], config.groups) for _ in range(2))
        self.norm_out = _norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], config.bits, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for level in cast(Iterable[nn.ModuleDict], self.levels):
            for block in cast(Iterable[nn.Module], level["blocks"]):
                x = block(x)
            x = level["resize"](x)
        for block in self.middle:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.base * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.bits, widths[-1], 3, padding=1)
        self.middle = nn.ModuleList(ResidualBlock(widths[-1], widths[-1], config.groups) for _ in range(2))
        levels: list[nn.Module] = []
        inner = widths[-1]
        for level in reversed(range(len(widths))):  # coarse to fine; stored fine to coarse
            outer = widths[level]
            blocks = [ResidualBlock(inner if i == 0 else outer, outer, config.groups) for i in range(config.blocks + 1)]
            levels.insert(
                0,
                nn.ModuleDict(
                    {
                        "blocks": nn.ModuleList(blocks),
                        "resize": Upsample(outer) if level else nn.Identity(),
                    }
                ),
            )
            inner = outer
        self.levels = nn.ModuleList(levels)
        self.norm_out = _norm(widths[0], config.groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, codes_BDHW: Tensor) -> Tensor:
        x = self.conv_in(codes_BDHW)
        for block in self.middle:
            x = block(x)
        for level in reversed(cast(list[nn.ModuleDict], list(self.levels))):
            for block in cast(Iterable[nn.Module], level["blocks"]):
                x = block(x)
            x = level["resize"](x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """The tokenizer's networks; the bits themselves are made by `Quantizer`. It may go without one of the two."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def only(self, part: str) -> Autoencoder:
        """Drop the other of `encoder` and `decoder`, and its memory."""
        delattr(self, "decoder" if part == "encoder" else "encoder")
        return self

    def encode(self, pixels: Tensor) -> Tensor:
        """[B,3,stride*H,stride*W] in [-1,1] -> raw features [B,D,H,W], float32 or better.

        Raises:
            ValueError: the sides are not multiples of the stride.
        """
        stride = self.config.stride
        if pixels.shape[-1] % stride or pixels.shape[-2] % stride:
            raise ValueError(f"pixels of shape {tuple(pixels.shape)} are not multiples of the stride {stride}")
        return self.encoder(pixels)

    def decode(self, codes_BDHW: Tensor) -> Tensor:
        """Summed codes [B,D,H,W] -> pixels [B,3,...], clamped to [-1,1], float32 or better."""
        weight = self.decoder.conv_in.weight
        pixels = self.decoder(codes_BDHW.to(weight.dtype))
        return pixels.to(torch.promote_types(weight.dtype, torch.float32)).clamp(-1, 1).contiguous()


def to_uint8(pixels: Tensor) -> Tensor:
    """[B,3,H,W] in [-1,1] -> [B,H,W,3] RGB bytes, truncated (not rounded) as the release does."""
    scaled = (pixels + 1) / 2 * 255
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
