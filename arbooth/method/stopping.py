"""When to stop where no number of steps is asked for (`finetune.steps: auto`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arbooth.method import losses
from arbooth.model.transformer import Text

if TYPE_CHECKING:
    from arbooth.method.fit import Fitting

# Steps from one look to the next: forward passes over few tokens, so that they cost next to nothing.
EVERY = 25
# Looks without a gain that are waited for: one of two is noise.
PATIENCE = 2
# The least relative fall of the validation loss that counts as one.
GAIN = 0.01
# The prior's loss has begun to drift at so many times its least, if that is more than so many nats a bit: below, the class
# is what it was.
DRIFT, SOUND = 2.0, 0.02
# Why a run ends: soon, after some more steps at falling rates, or at once.
ALIKE, DRIFTS = "the subject grows no more alike", "its class begins to drift"
# Steps of a run that would go on.
MOST = 1000


class Stopping:
    """Ends a run where the subject's likeness has reached a plateau (soon), or its class begins to drift (at once).

    Likeness is the loss of the coarser half of the scales on the pictures' middles, which are not trained on. Finer scales are
    learned by heart: their loss there rises while the subject is still growing alike.

    Args:
        features: of those middles, raw [P,D,H,W], one of every picture.

    Attributes:
        validation: step -> loss on them.
        prior: step -> the prior's loss, mean over the steps since the last look; nothing where it is not distilled.
        reason: why the run ends, if it does.
    """

    def __init__(self, features: Tensor) -> None:
        self.features, self.reason = features, ""
        self.validation: dict[int, float] = {}
        self.prior: dict[int, float] = {}

    def look(self, run: Fitting) -> bool:
        """Measure, if it is time to; whether there is a reason to end that was not there before. A run that ends soon can
        still begin to drift.
        """
        if run.step_number % EVERY:
            return False
        self.validation[run.step_number] = self.loss(run)
        if run.prior is not None and run.settings.prior == "distill":
            bits = run.quantizer.token_bits if run.settings.distillation == "joint" else 1  # a sum over them, or a mean
            self.prior[run.step_number] = torch.stack(run.rows[-EVERY:])[:, -1].mean().item() / bits
        before, self.reason = self.reason, self.verdict(self.reason)
        return self.reason != before

    @torch.no_grad()
    def loss(self, run: Fitting) -> float:
        """Mean over the coarser scales, without flips."""
        schedule = run.quantizer.schedule.first((len(run.quantizer.schedule) + 1) // 2)
        tokens = run.quantizer.encode(self.features.to(run.net.device))
        texts = Text.stack([run.text(photo) for photo in range(len(self.features))])
        logits = run.net(texts, tokens.inputs[:, : schedule.length - 1], schedule, backend=run.attention)
        loss_BL = losses.cross_entropy(logits, tokens.bits[:, : schedule.length])
        return losses.scale_means(loss_BL, schedule).mean().item()

    def verdict(self, before: str = "") -> str:
        """The reason to end, by what was measured so far: one that was there before, or is stronger."""
        validation, prior = list(self.validation.values()), list(self.prior.values())
        if prior and prior[-1] > max(SOUND, DRIFT * min(prior)):
            return DRIFTS
        earlier, last = validation[:-PATIENCE], validation[-PATIENCE:]
        if earlier and min(last) > (1 - GAIN) * min(earlier):
            return ALIKE
        return before

    def state(self) -> dict:
        """What a resumed run needs."""
        return {"validation": self.validation, "prior": self.prior, "reason": self.reason}

    def restore(self, state: dict) -> None:
        self.validation, self.prior, self.reason = dict(state["validation"]), dict(state["prior"]), state["reason"]
