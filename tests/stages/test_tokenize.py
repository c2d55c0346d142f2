"""What is kept of a subject's pictures beside their tokens."""

import pytest
import torch

from arbooth.stages.tokenize import EDGE, middles


@pytest.mark.parametrize("size", [(128, 128), (64, 96), (16, 16)])
def test_the_view_to_stop_by_is_the_middle_at_the_size_of_the_whole(size):
    height, width = size
    across = torch.linspace(-1, 1, width).expand(2, 3, height, width)
    middle = middles(across)
    assert middle.shape == across.shape and middle.abs().max() <= 1
    seen = middle[0, 0, height // 2]
    assert torch.all(seen.diff() > 0) and abs(seen.mean()) < 1e-3
    assert seen[-1] == pytest.approx(1 - 2 * EDGE, abs=2 / width + 0.02)
    assert torch.equal(middle[:1], middles(across[:1])), "no picture depends on another"


def test_a_frame_is_not_in_it():
    framed = torch.full((1, 3, 64, 64), -1.0)
    framed[..., 8:-8, 8:-8] = 1.0
    assert (middles(framed) < 0).float().mean() < (framed < 0).float().mean()
