"""Looks of their own for the world's drawings."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pretrain.looks import PATTERNS, dress


def drawing(width=90, height=70):
    image = Image.new("RGBA", (width, height))
    edge = min(width, height) // 14
    ImageDraw.Draw(image).ellipse((edge, edge, width - 1 - edge, height - 1 - edge), fill=(200, 120, 60, 255))
    return image


@pytest.mark.parametrize("size", [(90, 70), (12, 200), (256, 9), (1, 1)])
def test_what_is_drawn_stays_where_it_is_and_looks_otherwise(size):
    plain = drawing(*size)
    for seed in range(12):
        dressed = dress(np.random.default_rng(seed), plain)
        assert dressed.mode == "RGBA" and dressed.height == plain.height
        assert np.array_equal(np.asarray(dressed), np.asarray(dress(np.random.default_rng(seed), plain)))
        shares = [(np.asarray(image.getchannel("A")) > 127).mean() for image in (plain, dressed)]
        assert abs(shares[0] - shares[1]) < 0.12, seed


def test_no_two_are_alike():
    seen = [np.asarray(dress(np.random.default_rng(seed), drawing()).resize((32, 32)), float) for seed in range(30)]
    nearest = [min(np.abs(a - b).mean() for b in seen if b is not a) for a in seen]
    assert min(nearest) > 2


@pytest.mark.parametrize("pattern", dict.fromkeys(PATTERNS))
def test_a_pattern_is_a_share_of_a_second_colour(pattern):
    fields = [pattern(np.random.default_rng(seed), 40, 60) for seed in range(20)]
    assert all(field.shape == (40, 60) and field.min() >= 0 and field.max() <= 1 for field in fields)
    assert 0.1 < np.mean(fields) < 0.9
