import math

import pytest
import torch

from arbooth.method import losses
from arbooth.model.schedule import Schedule

SCHEDULE = Schedule.custom([[1, 1], [2, 2], [3, 3]])


def test_token_weights_follow_the_schedule():
    weights = losses.token_weights(SCHEDULE, 2, 1.0, 0.5)
    assert weights.tolist() == [1.0] * 5 + [0.5] * 9


def test_weighted_loss_is_a_plain_mean_of_weight_times_loss():
    token_loss = torch.ones(2, 14)
    assert float(losses.weighted_loss(token_loss, losses.token_weights(SCHEDULE, 2, 1.0, 0.5))) == pytest.approx(
        9.5 / 14
    )


def test_cross_entropy_of_even_logits_is_log_two():
    assert losses.cross_entropy(torch.zeros(1, 3, 4, 2), torch.ones(1, 3, 4).bool()).tolist() == [
        pytest.approx([math.log(2)] * 3)
    ]


def test_bernoulli_divergence_equals_the_textbook_sum():
    student, teacher = torch.randn(2, 5, 8, 2, dtype=torch.float64), torch.randn(2, 5, 8, 2, dtype=torch.float64)
    p, q = teacher.softmax(-1), student.softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    own = losses.bernoulli_distillation(student, teacher[..., 1] - teacher[..., 0]).mean()
    assert float(own) == pytest.approx(float(expected), rel=1e-9)


def test_a_perfect_student_has_no_divergence():
    logits = torch.randn(2, 5, 8, 2)
    assert float(losses.bernoulli_distillation(logits, logits[..., 1] - logits[..., 0]).mean()) == pytest.approx(
        0, abs=1e-6
    )
    assert float(losses.joint_distillation(logits, logits).mean()) == pytest.approx(0, abs=1e-6)


def test_the_joint_divergence_sees_shifts_that_bits_do_not():
    """Adding a constant to one bit's pair changes no bit, but does change the softmax over all logits."""
    teacher = torch.zeros(1, 1, 4, 2)
    student = teacher.clone()
    student[..., 0, :] += 3
    assert float(losses.bernoulli_distillation(student, torch.zeros(1, 1, 4)).mean()) == pytest.approx(0, abs=1e-6)
    assert float(losses.joint_distillation(student, teacher).mean()) > 0.1


def test_extreme_margins_stay_finite():
    student = torch.tensor([[[[0.0, 200.0]]]])
    assert torch.isfinite(losses.bernoulli_distillation(student, torch.tensor([[[-200.0]]])))


def test_losses_are_reported_per_scale():
    token_loss = torch.cat([torch.full((2, 1), 3.0), torch.full((2, 4), 2.0), torch.full((2, 9), 1.0)], dim=1)
    assert losses.scale_means(token_loss, SCHEDULE).tolist() == [3.0, 2.0, 1.0]
