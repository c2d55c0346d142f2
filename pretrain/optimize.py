"""The frame that every training of the base shares: Muon for matrices, AdamW for the rest, resume files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from arbooth.method.muon import Muon
from pretrain import checkpoint
from pretrain.ledger import Ledger

WARMUP = 100
# A slow machine keeps its state this often, between two saves that are looked at.
KEEP_SECONDS = 300


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
