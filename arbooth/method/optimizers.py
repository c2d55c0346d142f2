"""The optimizers of fine-tuning: AdamW, and the same with its moments in eight bits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from arbooth.errors import InputError

if TYPE_CHECKING:
    import torch

OPTIMIZERS = ("adamw", "adamw-8bit")


def optimizer_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    """AdamW in one kernel, without temporaries; `adamw-8bit` keeps a quarter of its state (Dettmers et al., 2021).

    Raises:
        InputError: the library that holds moments in eight bits is not installed.
    """
    if name == "adamw":
        import torch

        return partial(torch.optim.AdamW, fused=True)
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it lists what it could not load of its kernels
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise InputError(
            "finetune.optimizer adamw-8bit needs torchao: run `pip install 'arbooth[low-memory]'`, or set adamw"
        ) from None
    return AdamW8bit
