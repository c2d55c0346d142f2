"""The losses of ARBooth: scale-wise weighted cross-entropy and prior distillation (sections 3.3, 3.4).

Shape suffixes: B batch, L tokens, D bits of a token, K scales. Logits come in pairs [B,L,D,2].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from arbooth.model.schedule import Schedule


def token_weights(schedule: Schedule, coarse_scales: int, coarse: float, fine: float) -> Tensor:
    """Weight of every token, [L]: `coarse` on the first scales, `fine` on the later ones."""
    weights = [
        torch.full((end - start,), coarse if scale < coarse_scales else fine)
        for scale, (start, end) in enumerate(schedule.spans)
    ]
    return torch.cat(weights)


def chance_weights(schedule: Schedule, last_scale_chance: float) -> Tensor:
    """What keeps the loss unbiased where only some steps run the last scale: its tokens count for those left out, [L]."""
    start, _ = schedule.spans[-1]
    weights = torch.ones(schedule.length)
    weights[start:] /= last_scale_chance
    return weights


def cross_entropy(logits_BLD2: Tensor, bits_BLD: Tensor) -> Tensor:
    """Two-way cross-entropy in nats, averaged over a token's bits: [B,L]."""
    margin = logits_BLD2[..., 1] - logits_BLD2[..., 0]
    return F.binary_cross_entropy_with_logits(margin, bits_BLD.to(margin.dtype), reduction="none").mean(-1)


def weighted_loss(token_loss_BL: Tensor, weights_L: Tensor) -> Tensor:
    """Mean over batch and tokens of weight times loss (not divided by the sum of weights)."""
    return (token_loss_BL * weights_L).mean()


def scale_means(token_loss_BL: Tensor, schedule: Schedule) -> Tensor:
    """Mean loss of each scale, [K], on the device."""
    means = token_loss_BL.detach().mean(0)
    return torch.stack([means[start:end].mean() for start, end in schedule.spans])


def bernoulli_distillation(student_BLD2: Tensor, teacher_BLD: Tensor) -> Tensor:
    """KL(teacher || student) in nats between two-way bit distributions, averaged over a token's bits: [B,L].

    Args:
        student_BLD2: logits.
        teacher_BLD: the teacher's logit differences, bit 1 less bit 0, at temperature 1.
    """
    student = student_BLD2[..., 1] - student_BLD2[..., 0]
    teacher = teacher_BLD.to(student.dtype)
    one = torch.sigmoid(teacher)
    ones = one * (F.logsigmoid(teacher) - F.logsigmoid(student))
    zeros = (1 - one) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (ones + zeros).mean(-1)


def joint_distillation(student_BLD2: Tensor, teacher_BLD2: Tensor) -> Tensor:
    """KL(teacher || student) of one softmax over all 2D logits of a token: [B,L].

    This is what the published code computes; it couples bits that are independent in the model.
    """
    student = F.log_softmax(student_BLD2.flatten(2), dim=-1)
    teacher = F.log_softmax(teacher_BLD2.to(student.dtype).flatten(2), dim=-1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
