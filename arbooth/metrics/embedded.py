"""Small encoders of our own, for the embedded base's world; they are neither DINO nor CLIP.

`pretrain/train_encoders.py` makes them. Shape suffixes: B batch, F features.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXELS = 128
WIDTH = 128


class ConvTower(nn.Module):
    """Five strided stages: [B,3,128,128] to a list of feature maps and pooled features [B,F]."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 64, 96, 128)) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for inner, outer in zip((3, *widths), widths):
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(inner, outer, 3, stride=2, padding=1),
                    nn.GroupNorm(8, outer),
                    nn.SiLU(),
                    nn.Conv2d(outer, outer, 3, padding=1),
                    nn.GroupNorm(8, outer),
                    nn.SiLU(),
                )
            )
        self.output = nn.Linear(widths[-1], WIDTH)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        maps, x = [], pixels * 2 - 1
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        # Mean and maximum: a subject fills part of the picture, a scene all of it.
        return maps, self.output(x.mean((2, 3)) + x.amax((2, 3)))


class TextTower(nn.Module):
    """Mean of word vectors through two layers; words outside the list are left out."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.index = {word: i + 1 for i, word in enumerate(words)}
        self.vectors = nn.Embedding(len(words) + 1, WIDTH, padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, texts: list[str]) -> Tensor:
        rows = [[self.index.get(w, 0) for w in re.findall(r"[a-z0-9]+", text.lower())] or [0] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.vectors.weight.device)
        known = (ids > 0).sum(1, keepdim=True).clamp(min=1)
        return self.layers(self.vectors(ids).sum(1) / known)


class EmbeddedEncoders(nn.Module):
    """The three offline encoders behind the interface of `metrics.encoders`."""

    names: ClassVar[dict[str, str]] = {
        "image": "I_embedded",
        "joint": "I_embedded_joint",
        "text": "T_embedded",
        "preservation": "PRES_embedded",
        "diversity": "DIV_embedded",
    }
    literal_template = False

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.subject, self.joint, self.words = ConvTower(), ConvTower(), TextTower(words)

    @torch.inference_mode()
    def image_features(self, pixels: Tensor) -> Tensor:
        """[B,3,H,W] in [0,1] -> which drawing it shows, whatever the scene: [B,F]."""
        return F.normalize(self.subject(sized(pixels))[1], dim=-1)

    @torch.inference_mode()
    def joint_features(self, pixels: Tensor) -> Tensor:
        """[B,3,H,W] in [0,1] -> features comparable with `text_features`: [B,F]."""
        return F.normalize(self.joint(sized(pixels))[1], dim=-1)

    @torch.inference_mode()
    def text_features(self, text: str) -> Tensor:
        return F.normalize(self.words([text])[0], dim=-1)

    @torch.inference_mode()
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Perceptual distance in the manner of LPIPS, over the subject tower's maps: [B]."""
        total = torch.zeros(len(first), device=first.device)
        for a, b in zip(self.subject(sized(first))[0], self.subject(sized(second))[0]):
            difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
            total = total + difference.square().sum(1).mean((1, 2))
        return total


def sized(pixels: Tensor) -> Tensor:
    """Pictures at the side that the towers read."""
    if tuple(pixels.shape[-2:]) == (PIXELS, PIXELS):
        return pixels
    return F.interpolate(pixels, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
