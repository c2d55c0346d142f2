"""Scores of a personalised subject, from encoder features (ARBooth, section 4.1).

Shape suffixes: P photos, N generated pictures, F features (l2-normalised).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Pairs of pictures compared at once: 1024-pixel pictures are large.
PAIRS = 16
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def image_similarity(photos_PF: Tensor, images_NF: Tensor) -> float:
    """Mean cosine over every (photo, picture) pair: I_dino and I_clip of one prompt, PRES of the class."""
    return float((photos_PF.double() @ images_NF.double().T).mean())


def text_similarity(text_F: Tensor, images_NF: Tensor) -> float:
    """Mean cosine between a prompt and its pictures: T_clip of one prompt."""
    return float((images_NF.double() @ text_F.double()).mean())


def diversity(images: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> float | None:
    """Mean pairwise perceptual distance among pictures of one prompt: DIV; None for fewer than two.

    Args:
        images: [N,3,H,W] in [0,1].
        distance: two batches of pictures to [pairs] distances.
    """
    import torch

    first, second = torch.triu_indices(len(images), len(images), offset=1)
    if len(first) == 0:
        return None
    pairs = zip(first.split(PAIRS), second.split(PAIRS))
    return float(torch.cat([distance(images[a], images[b]).double() for a, b in pairs]).mean())


def sharpness(images: Tensor) -> list[float]:
    """Standard deviation of the Laplacian of each picture's luminance, a measure of focus (Pech-Pacheco et al., 2000): how
    much fine detail there is, whatever it shows.

    Args:
        images: [N,3,H,W] in [0,1].
    """
    import torch
    from torch.nn import functional as F

    light = torch.einsum("nchw,c->nhw", images.double(), images.new_tensor(LUMINANCE, dtype=torch.float64))[:, None]
    laplacian = light.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(light, laplacian).flatten(1).std(1).tolist()


def mean(values: list[float | None]) -> float | None:
    """Plain mean over prompts or subjects, leaving out those that have no value."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
