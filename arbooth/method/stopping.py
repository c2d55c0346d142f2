"""When to stop where no number of steps is asked for (`finetune.steps: auto`)."""

from __future__ import annotations

from dataclasses import dataclass, field

# Steps between two looks, and how many looks without a gain are waited for.
EVERY, PATIENCE = 25, 2
# What counts as a gain of the crops' loss, relative; where the prior's loss has begun to drift, relative to its least and
# in nats a bit; the longest run.
GAIN, DRIFT, SOUND, MOST = 0.01, 2.0, 0.02, 1000


@dataclass
class Stopping:
    """Fitting ends where likeness to crops that are not trained on no longer grows, or the class begins to drift.

    Attributes:
        held: step -> the subject's loss on coarse scales of a crop of every photo, held back.
        prior: step -> the prior's loss, mean over the steps since the last look; nothing where there is no prior.
    """

    held: dict[int, float] = field(default_factory=dict)
    prior: dict[int, float] = field(default_factory=dict)

    def look(self, step: int, held: float, prior: float | None) -> bool:
        """Note both losses. Is it time to stop?"""
        self.held[step] = held
        if prior is not None:
            self.prior[step] = prior
        return self.is_alike or self.drifts

    @property
    def is_alike(self) -> bool:
        losses = list(self.held.values())
        before, last = losses[:-PATIENCE], losses[-PATIENCE:]
        return bool(before) and min(last) > (1 - GAIN) * min(before)

    @property
    def drifts(self) -> bool:
        losses = list(self.prior.values())
        return bool(losses) and losses[-1] > max(SOUND, DRIFT * min(losses))
