import pytest
import torch
from torch.nn.functional import normalize

from arbooth.metrics.scores import diversity, image_similarity, mean, sharpness, text_similarity


def test_similarity_is_the_mean_over_every_pair():
    photos, images = normalize(torch.randn(3, 8), dim=1), normalize(torch.randn(4, 8), dim=1)
    expected = sum(float(p @ i) for p in photos for i in images) / 12
    assert image_similarity(photos, images) == pytest.approx(expected, abs=1e-6)
    assert text_similarity(photos[0], images) == pytest.approx(sum(float(photos[0] @ i) for i in images) / 4, abs=1e-6)


def test_diversity_is_the_mean_over_unordered_pairs():
    images = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    gap = lambda a, b: (a - b).abs().mean((1, 2, 3))  # noqa: E731
    assert diversity(images, gap) == pytest.approx((1 + 3 + 2) / 3)
    assert diversity(images[:1], gap) is None


def test_many_pairs_are_compared_in_parts():
    images = torch.rand(12, 3, 2, 2)
    sizes = []

    def gap(a, b):
        sizes.append(len(a))
        return (a - b).abs().mean((1, 2, 3))

    whole = torch.stack([(a - b).abs().mean() for i, a in enumerate(images) for b in images[i + 1 :]]).mean()
    assert diversity(images, gap) == pytest.approx(float(whole), rel=1e-5)
    assert sum(sizes) == 66 and max(sizes) <= 16


def test_mean_leaves_out_what_is_missing():
    assert mean([1.0, None, 3.0]) == 2.0
    assert mean([None]) is None


def test_sharpness_is_fine_detail_and_no_shading():
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 0.5
    shading = torch.arange(16)[:, None] / 16 + torch.arange(16) / 32
    plain, fine = shading.expand(3, 16, 16), checks.expand(3, 16, 16)
    soft = torch.nn.functional.avg_pool2d(fine, 3, 1)
    # Every neighbour of a dark pixel is light: the Laplacian is four times their difference, up or down.
    assert sharpness(torch.stack([plain, fine])) == pytest.approx([0, 4 * 0.5], abs=0.01)
    assert sharpness(soft[None])[0] < 0.2 * sharpness(fine[None])[0]
    assert sharpness(torch.stack([fine, plain]))[0] == sharpness(fine[None])[0]
