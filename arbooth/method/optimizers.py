"""The optimizers of fine-tuning: AdamW, the same with its moments in eight bits, and Muon."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from arbooth.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OPTIMIZERS = ("adamw", "adamw-8bit", "muon")


class Optimizers:
    """Several that step together, as one.

    Attributes:
        state: of every parameter, as `torch.optim.Optimizer` has it.
    """

    def __init__(self, *own: torch.optim.Optimizer) -> None:
        self.own = own
        self.rates = [float(group["lr"]) for group in self.groups]

    @property
    def groups(self) -> list[dict]:
        return [group for one in self.own for group in one.param_groups]

    @property
    def state(self) -> dict[Tensor, dict]:
        return {parameter: state for one in self.own for parameter, state in one.state.items()}

    def rates_times(self, share: float) -> None:
        """Every learning rate is this share of what it was made with."""
        for group, rate in zip(self.groups, self.rates):
            if isinstance(group["lr"], float):
                group["lr"] = share * rate
            else:  # torchao's is a tensor
                group["lr"].fill_(share * rate)

    def step(self) -> None:
        for one in self.own:
            one.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for one in self.own:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, list[dict]]:
        return {"own": [one.state_dict() for one in self.own]}

    def load_state_dict(self, state: dict[str, list[dict]]) -> None:
        for one, own in zip(self.own, state["own"], strict=True):
            one.load_state_dict(own)


def optimizer_of(name: str) -> Callable[..., Optimizers]:
    """How an optimizer is made: called with the identifier, the layers' parameters, the rate of each of these two, betas and
    weight decay.

    `adamw` runs in one kernel, without temporaries; `adamw-8bit` keeps a quarter of its state (Dettmers et al., 2021).
    `muon` steps the layers' matrices as Muon does, and by AdamW the vectors, which move as far, and the identifier.

    Raises:
        InputError: the library that holds moments in eight bits is not installed.
    """
    import torch

    if name != "adamw-8bit":
        return partial(_made, partial(torch.optim.AdamW, fused=True), name == "muon")
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it lists what it could not load of its kernels
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise InputError(
            "finetune.optimizer adamw-8bit needs torchao: run `pip install 'arbooth[low-memory]'`, or set adamw"
        ) from None
    return partial(_made, AdamW8bit, False)


def _made(
    adamw: Callable[..., torch.optim.Optimizer],
    has_muon: bool,
    identifier: Tensor,
    layers: Sequence[Tensor],
    rates: tuple[float, float],
    betas: tuple[float, float],
    weight_decay: float,
) -> Optimizers:
    from arbooth.method.muon import RMS, Muon

    matrices = [p for p in layers if has_muon and p.ndim == 2]
    rest = [p for p in layers if not has_muon or p.ndim != 2]
    groups = [{"params": [identifier], "lr": rates[0]}]
    if rest:
        groups.append({"params": rest, "lr": RMS * rates[1] if has_muon else rates[1]})
    own = [adamw(groups, betas=betas, weight_decay=weight_decay)]
    if matrices:
        own.append(Muon(matrices, rates[1], weight_decay=weight_decay, like_adamw=True))
    return Optimizers(*own)
