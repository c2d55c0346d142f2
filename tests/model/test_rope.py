import pytest
import torch

from arbooth.model.rope import positions, rotary_table, rotate
from arbooth.model.schedule import Schedule


def test_positions_lie_on_the_reference_grid():
    schedule = Schedule.custom([[1, 1], [4, 4]])
    where = positions(schedule)
    assert where.shape == (17, 2)
    assert where[0].tolist() == [0, 0]
    assert where[1:5].tolist() == [[0, 0], [0, 16], [0, 32], [0, 48]]


def test_rotation_keeps_norms_and_depends_on_relative_place_only():
    schedule = Schedule.custom([[8, 8]])
    table = rotary_table(schedule, 16).double()
    q, k = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    turned_q, turned_k = rotate(q.expand(1, 1, 64, 16), table)[0, 0], rotate(k.expand(1, 1, 64, 16), table)[0, 0]
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(64))
    scores = turned_q @ turned_k.T
    # (0,0)->(1,1) and (4,5)->(5,6) are the same step.
    assert scores[0, 9] == pytest.approx(float(scores[37, 46]), rel=1e-5)
    assert scores[0, 9] != pytest.approx(float(scores[0, 1]), rel=1e-3)


def test_head_width_must_divide_by_four():
    with pytest.raises(ValueError, match="divisible by 4"):
        rotary_table(Schedule.custom([[1, 1]]), 6)
