"""The frame that every training of the base shares: Muon for matrices, AdamW for the rest, resume files."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrain import checkpoint
from pretrain.ledger import Ledger

WARMUP = 100
# A slow machine keeps its state this often, between two saves that are looked at.
KEEP_SECONDS = 300


class Muon(torch.optim.Optimizer):
    """Momentum whose step is the nearest orthogonal matrix, by a Newton-Schulz iteration (Jordan et al., 2024).

    PyTorch's own takes matrices only; this one takes convolutions as well (kernels flattened to rows), and iterates
    in bfloat16 only where that is fast.
    """

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[tuple, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.flatten(1).shape, []).append(p)
            for (height, width), own in alike.items():  # together: a GPU waits for the orders more than for the products
                rows = torch.stack([self._direction(p, group["momentum"]) for p in own])
                scale = max(1, height / width) ** 0.5
                for p, step in zip(own, orthogonal(rows)):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(step.view_as(p), alpha=-group["lr"] * scale)

    def _direction(self, p: Tensor, inertia: float) -> Tensor:
        """Nesterov's momentum of one parameter, as rows."""
        if "momentum" not in self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        momentum = self.state[p]["momentum"].lerp_(p.grad, 1 - inertia)
        return p.grad.lerp(momentum, inertia).flatten(1)


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
    return device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)


def optimizers(net: nn.Module, rate: float, is_hidden: Callable[[str, Tensor], bool]) -> list[torch.optim.Optimizer]:
    """Muon for hidden weights at ten times `rate`, AdamW at `rate` for the rest: ends, tables, gains, biases."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    hidden = [p for name, p in named if is_hidden(name, p)]
    rest = [p for name, p in named if not is_hidden(name, p)]
    return [Muon(hidden, lr=10 * rate), torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)]


def run(
    net: nn.Module,
    steppers: list[torch.optim.Optimizer],
    loss_at: Callable[[int], Tensor],
    path: Path,
    *,
    steps: int,
    decay: int,
    batch: int,
    average: float = 0.998,
    save_every: int = 200,
    show: Callable[[], dict[str, float]] = dict,
    ledger: Ledger | None = None,
) -> None:
    """Train `net`, or go on where the resume file `path` stands, and leave its running average in it.

    Args:
        loss_at: the loss of a step; draws what it needs from the step's number, so that a resumed run is the same.
        steps: steps in all; the rate falls to zero over the last `decay`, so more may be asked for later.
        batch: samples a step, to report the speed.
        average: how slowly the running average follows.
        show: called with the average in place at every save; paints, measures, returns what to report.
        ledger: where to log it.
    """
    rates = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    mean = {k: v.detach().clone() for k, v in net.state_dict().items()}
    current = list(net.state_dict().values())  # the tensors themselves, which the steppers change in place
    first, state = 0, checkpoint.load(path)
    if state:
        net.load_state_dict(state["net"])
        for stepper, saved in zip(steppers, state["optimizers"]):
            stepper.load_state_dict(saved)
        mean = {name: value.to(mean[name].device) for name, value in state["average"].items()}
        first = state["step"]
    started = kept = time.time()
    loss_mean = None
    for step in range(first, steps):
        factor = min(1, (step + 1) / WARMUP, (steps - step) / max(1, decay))
        groups = [group for stepper in steppers for group in stepper.param_groups]
        for group, rate in zip(groups, rates):
            group["lr"] = rate * factor
        loss = loss_at(step)
        net.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        with torch.no_grad():
            pace = 1 - min(average, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(mean.values()), current, pace)
            # It stays on the device: reading it would wait for the step.
            loss_mean = loss.detach() if loss_mean is None else loss_mean.lerp(loss.detach(), 0.02)
        shown = (step + 1) % save_every == 0 or step + 1 == steps
        if shown or time.time() - kept > KEEP_SECONDS:
            saved = [stepper.state_dict() for stepper in steppers]
            checkpoint.save(path, net=net.state_dict(), optimizers=saved, average=mean, step=step + 1)
            kept = time.time()
        if shown:
            speed = (step + 1 - first) * batch / (time.time() - started)
            own = {k: v.clone() for k, v in net.state_dict().items()}
            net.load_state_dict(mean)
            values = {"loss": loss_mean.item(), "samples_per_second": speed, **show()}
            print(f"step {step + 1}/{steps} " + " ".join(f"{k} {v:.4g}" for k, v in values.items()), flush=True)
            if ledger:
                ledger.log(step + 1, values)
            net.load_state_dict(own)
    net.load_state_dict(mean)
