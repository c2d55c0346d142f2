"""Muon (Jordan et al., 2024): momentum whose step is the nearest orthogonal matrix. Pretraining and fine-tuning use it.

PyTorch's own takes matrices only and iterates in bfloat16 always, which is very slow on a CPU without it.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
from torch import Tensor

# Of the rate, the root mean square of what AdamW adds (Liu et al., 2025).
RMS = 0.2
# Elements that are iterated on together: a GPU waits for orders more than for products, a CPU has caches to stay within.
TOGETHER = {"cuda": 2**24}


class Muon(torch.optim.Optimizer):
    """Takes matrices, and convolutions with their kernels flattened to rows.

    Args:
        like_adamw: scale steps to the root mean square that AdamW's have at the same rate, and not by the matrix's shape.
    """

    def __init__(
        self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.01, like_adamw: bool = False
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.like_adamw = like_adamw

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        for group in self.param_groups:
            alike: dict[tuple, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.flatten(1).shape, []).append(p)
            for (height, width), own in alike.items():
                count = max(1, TOGETHER.get(own[0].device.type, 0) // (height * width))
                for first in range(0, len(own), count):
                    self._step(own[first : first + count], group)

    def _step(self, own: list[Tensor], group: dict) -> None:
        """Of parameters whose rows are of one shape."""
        rows = torch.stack([self._direction(p, group["momentum"]) for p in own])
        height, width = rows.shape[1:]
        scale = RMS * max(height, width) ** 0.5 if self.like_adamw else max(1, height / width) ** 0.5
        for p, step in zip(own, orthogonal(rows)):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(step.view_as(p), alpha=-group["lr"] * scale)

    def _direction(self, p: Tensor, inertia: float) -> Tensor:
        """Nesterov's momentum of one parameter, as rows."""
        if "momentum" not in self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        gradient = cast(Tensor, p.grad)
        momentum = self.state[p]["momentum"].lerp_(gradient, 1 - inertia)
        return gradient.lerp(momentum, inertia).flatten(1)


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Push all singular values of matrices [N,R,C] near one, without computing them."""
    a, b, c = 3.4445, -4.7750, 2.0315  # a quintic whose iterates settle between 0.7 and 1.2
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16 if has_bfloat16(matrices.device) else matrices.dtype)
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


@cache
def has_bfloat16(device: torch.device) -> bool:
    """Are matrices multiplied faster in bfloat16 than in float32 there?"""
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # which older versions of torch lack
    return device.type == "cuda" or known.get("avx512_bf16", False)
