"""Fine-tuning: a plain function of tensors (ARBooth, section 3).

Neither the teacher, nor the tokenizer, nor the text encoder is needed here: the subject comes as raw
features, the prior as cached token maps with the teacher's logits.

Shape suffixes: B batch, L tokens, P bits of a token, T text tokens, F text width, N identifier rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from arbooth.errors import InputError, Interrupted
from arbooth.method import losses
from arbooth.method.optimizers import optimizer_of
from arbooth.method.prior import ClassPrior
from arbooth.method.seeds import generator
from arbooth.method.stopping import ALIKE, MOST, Stopping
from arbooth.method.tuning import KINDS, check_finite
from arbooth.model.moving import moved
from arbooth.model.quantizer import Quantizer, SelfCorrection, Tokens
from arbooth.model.schedule import Schedule
from arbooth.model.text import Prompt
from arbooth.model.transformer import Text, Transformer

# Reading a loss waits for the device: every so many steps.
CHECKED = 16


@dataclass(frozen=True)
class FitSettings:
    """The recipe; names are those of params.yaml's `finetune` and `methods` sections."""

    steps: int | Literal["auto"]
    batch: int
    accumulate: int
    learning_rate: float
    identifier_learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    identifier_tokens: int
    coarse_scales: int
    coarse_weight: float
    fine_weight: float
    prior_weight: float
    distillation: str
    drop_text: float
    correction_strength: float
    correction_scales: int
    recompute: bool
    layers: tuple[str, ...]
    scale_weights: bool
    prior: str
    seed: int
    rank: int = 0
    micro_batch: int = 0
    last_scale_chance: float = 1.0
    optimizer: str = "adamw"
    decay: float = 0.0

    @property
    def kind(self) -> str:
        """Which of `method.tuning.KINDS` is trained."""
        return "low-rank" if self.rank and self.layers else "full"


@dataclass
class Batch:
    """What a step learns from.

    Attributes:
        tokens: of the photos, over the whole schedule.
        texts: for each photo which one it is, whose prompt is learned; None where the text is left out.
        classes: rows of the class prior, on the CPU.
        schedule: as far as this step runs.
    """

    tokens: Tokens
    texts: list[int | None]
    classes: Tensor
    schedule: Schedule


class Resume(Protocol):
    """Where an unfinished run is kept; `data.resume.ResumeFile` is the one on disk."""

    def load(self) -> dict | None: ...

    def save(self, state: dict) -> None: ...

    def due(self) -> bool: ...

    def stopping(self) -> bool: ...


class Watch(Protocol):
    """Looks on after every step; `stages.samples.Samples` paints."""

    def __call__(self, step: int, identifier: Tensor) -> None: ...

    def state(self) -> dict: ...

    def restore(self, state: dict) -> None: ...


@dataclass
class FitResult:
    """What was trained: tensors of an adapter by name, the identifier [N,F], one row of losses per step, and why it ended
    where that was not settled before."""

    parameters: dict[str, Tensor]
    identifier: Tensor
    history: list[dict[str, float]]
    stopped: str | None = None


class Fitting:
    """A fine-tuning run: the network, what is trained of it, its data and its optimizer."""

    def __init__(
        self,
        net: Transformer,
        quantizer: Quantizer,
        features: Tensor,
        prompts: Sequence[Prompt],
        prior: ClassPrior | None,
        settings: FitSettings,
        attention: str = "scales",
    ) -> None:
        if len(prompts) != len(features):
            raise ValueError(f"there are {len(prompts)} prompts for {len(features)} photos")
        if settings.prior != "none" and prior is None:
            raise ValueError(f"prior is {settings.prior!r}, but no class prior is given")
        self.net, self.quantizer, self.settings, self.attention = net, quantizer, settings, attention
        device = net.device
        self.features = features.to(device)
        self.prompts = [Prompt(prompt.features.to(device), prompt.identifier_rows) for prompt in prompts]
        self.prior = prior if settings.prior != "none" else None
        if self.prior is not None:
            self.class_text = self.prior.features.to(device)
        self.parameters = KINDS[settings.kind].attach(net, settings.layers, settings.rank, settings.seed)
        shape = (settings.identifier_tokens, net.config.text_width)
        self.identifier = torch.zeros(shape, device=device, requires_grad=True)
        self.weights = torch.ones(quantizer.schedule.length, device=device)
        if settings.scale_weights:
            self.weights = losses.token_weights(
                quantizer.schedule, settings.coarse_scales, settings.coarse_weight, settings.fine_weight
            ).to(device)
        # A schedule of one scale has none to leave out.
        self.chance = settings.last_scale_chance if len(quantizer.schedule) > 1 else 1.0
        self.chances = losses.chance_weights(quantizer.schedule, self.chance).to(device)
        self.correction = SelfCorrection(settings.correction_strength, settings.correction_scales)
        rates = (settings.identifier_learning_rate, settings.learning_rate)
        layers = list(self.parameters.values())
        self.optimizer = optimizer_of(settings.optimizer)(
            self.identifier, layers, rates, settings.betas, settings.weight_decay
        )
        self.step_number = 0
        self.last = settings.steps if settings.steps != "auto" else MOST
        self.rows: list[Tensor] = []

    def step(self) -> Tensor:
        """One optimizer step for both losses together; its row of the history (see `columns`), left on the device."""
        settings, parts = self.settings, []
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(settings.accumulate):
            # Draws depend on the step alone: a resumed run needs no generator state to repeat them.
            draw, rows = generator(settings.seed, "fit", self.step_number, part), []
            for loss, row in self.losses(self.draw_batch(draw)):
                if loss.requires_grad:  # not where the identifier alone is trained and every text was dropped
                    (loss / settings.accumulate).backward()
                rows.append(row)
            parts.append(torch.stack(rows).sum(0))
        self.optimizer.rates_times(self.share_of_rates)
        self.optimizer.step()
        self.step_number += 1
        row = torch.stack(parts).mean(0)
        row[2:-1] = torch.stack(parts)[:, 2:-1].nanmean(0)  # of the parts that ran a scale
        self.rows.append(row)
        return row

    @property
    def share_of_rates(self) -> float:
        """Of the learning rates, at this step: all, and toward the last step less and less."""
        falling = self.settings.decay * self.last
        return min(1.0, (self.last - self.step_number) / falling) if falling else 1.0

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Weighted cross-entropy on the subject plus the prior's loss, in parts that sum up to it.

        A part is one forward pass over at most `micro_batch` samples; 0 takes all of them in one. Each comes with its
        share of the history's row.
        """
        count = self.settings.batch
        samples = count + len(batch.classes)
        size = self.settings.micro_batch or samples
        for first in range(0, samples, size):
            last = first + size
            yield self._part(batch, slice(first, min(last, count)), slice(max(first - count, 0), max(last - count, 0)))

    def draw_batch(self, draw: torch.Generator) -> Batch:
        """Photos drawn with replacement, bits flipped anew, the text dropped now and then; and rows of the prior."""
        settings, schedule = self.settings, self.quantizer.schedule
        photos = torch.randint(len(self.features), (settings.batch,), generator=draw)
        flips = self.quantizer.draw_flips(settings.batch, self.correction, draw)
        dropped = torch.rand(settings.batch, generator=draw) < settings.drop_text
        classes = torch.empty(0, dtype=torch.long)
        if self.prior is not None:
            classes = torch.randint(len(self.prior.bits), (settings.batch,), generator=draw)
        if self.chance < 1 and torch.rand((), generator=draw) >= self.chance:
            schedule = schedule.first(len(schedule) - 1)  # no token sees a finer scale: what is left is the same
        features = self.features[moved(photos, self.net.device)]
        tokens = self.quantizer.encode(features, flips_BLP=moved(flips, self.net.device))
        texts = [None if drop else photo for photo, drop in zip(photos.tolist(), dropped.tolist())]
        return Batch(tokens, texts, classes, schedule)

    def _part(self, batch: Batch, photos: slice, classes: slice) -> tuple[Tensor, Tensor]:
        """Loss and row of some of a step's samples, [2+K+1]."""
        settings, schedule, device = self.settings, batch.schedule, self.net.device
        texts, length = [self.text(photo) for photo in batch.texts[photos]], schedule.length
        inputs_BLP, bits_BLP = batch.tokens.inputs[photos, : length - 1], batch.tokens.bits[photos, :length]
        own, chosen = len(texts), batch.classes[classes]
        if self.prior is not None and len(chosen):
            class_inputs, _ = self.quantizer.inputs_from_bits(moved(self.prior.bits[chosen], device))
            inputs_BLP = torch.cat([inputs_BLP, class_inputs[:, : length - 1]])
            texts += [self.class_text] * len(chosen)
        logits = self.net(Text.stack(texts), inputs_BLP, schedule, recompute=settings.recompute, backend=self.attention)
        share = length / self.quantizer.schedule.length / settings.batch  # means are over whole schedules and batches
        row = torch.zeros(len(self.columns), device=device)
        total = subject = prior = row.new_zeros(())
        if own:
            token_loss_BL = losses.cross_entropy(logits[:own], bits_BLP)
            weights = (self.weights * self.chances)[:length]
            total = subject = own * share * losses.weighted_loss(token_loss_BL, weights)
            row[2:-1] = torch.nan  # a scale that was left out was not measured
            row[2 : 2 + len(schedule)] = losses.scale_means(token_loss_BL, schedule) * own / settings.batch
        if self.prior is not None and len(chosen):
            token_loss_BL = self._prior_loss(self.prior, logits[own:], chosen, length)
            prior = len(chosen) * share * losses.weighted_loss(token_loss_BL, self.chances[:length])
            total = total + settings.prior_weight * prior
        row[0], row[1], row[-1] = total.detach(), subject.detach(), prior.detach()
        return total, row

    def text(self, photo: int | None) -> Tensor:
        """A photo's prompt with the identifier in it, or the stand-in for no text, as long as the first one's."""
        text = self.prompts[photo or 0].with_subject(self.identifier)
        return self.net.no_text[: len(text)].to(text.dtype) if photo is None else text

    def _prior_loss(self, prior: ClassPrior, logits: Tensor, chosen: Tensor, length: int) -> Tensor:
        """[B,L] of class samples."""
        device = self.net.device
        if self.settings.prior == "data":
            return losses.cross_entropy(logits, moved(prior.bits[chosen, :length], device))
        margins = moved(prior.margins[chosen, :length], device).float()
        if self.settings.distillation == "bernoulli":
            return losses.bernoulli_distillation(logits, margins)
        if prior.zeros is None:
            raise ValueError("joint distillation needs a class prior drawn with keep_pairs")
        zeros = moved(prior.zeros[chosen, :length], device).float()
        return losses.joint_distillation(logits, torch.stack([zeros, zeros + margins], dim=-1))

    @property
    def columns(self) -> list[str]:
        """Names of a row's values; scales that a step left out are not a number there."""
        return ["loss", "subject", *(f"scale_{k + 1}" for k in range(len(self.quantizer.schedule))), "prior"]

    @property
    def history(self) -> list[dict[str, float]]:
        """What every step so far measured, without what it left out."""
        values = torch.stack(self.rows).tolist() if self.rows else []
        return [
            {
                "step": k + 1,
                **{n: v for n, v in zip(self.columns, row) if n in ("loss", "subject") or not math.isnan(v)},
            }
            for k, row in enumerate(values)
        ]

    def check(self) -> None:
        """Raises InputError: a loss is not finite any more."""
        values = torch.stack(self.rows)[:, 0].tolist()
        for number, loss in enumerate(values, 1):
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} at step {number}: lower finetune.learning_rate, "
                    "finetune.identifier_learning_rate or finetune.prior_weight"
                )

    def state(self) -> dict:
        """Everything that a resumed run needs."""
        return {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "identifier": self.identifier.detach(),
            "optimizer": self.optimizer.state_dict(),
            "rows": torch.stack(self.rows).cpu(),
            "last": self.last,
        }

    def restore(self, state: dict) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
            self.identifier.copy_(state["identifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rows = list(state["rows"].to(self.net.device))
        self.step_number, self.last = len(self.rows), state["last"]

    def end(self, soon: bool) -> None:
        """End here, or soon: after as many steps at falling rates as their share of all steps asks for."""
        share = 1 - self.settings.decay if soon else 1
        self.last = min(MOST, math.ceil(self.step_number / share))


def fit(
    net: Transformer,
    quantizer: Quantizer,
    features: Tensor,
    prompts: Sequence[Prompt],
    prior: ClassPrior | None,
    settings: FitSettings,
    *,
    resume: Resume | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    attention: str = "scales",
    watch: Watch | None = None,
    validation: Tensor | None = None,
) -> FitResult:
    """Fine-tune `net` in place on one subject.

    Args:
        net: the frozen base transformer, on its device.
        quantizer: of the base's schedule.
        features: raw features of the photos [B,D,H,W].
        prompts: of each photo the features of its training prompt, with the rows of the identifier.
        prior: cached class samples; None where `settings.prior` is "none".
        settings: the recipe.
        resume: keeps unfinished runs; a run that resumes ends with the same bits.
        progress: wraps the range of steps that are left.
        attention: kernel of the block-causal attention.
        watch: is called after every step; what it keeps is kept with an unfinished run.
        validation: raw features of every picture's middle, which is not trained on [B,D,H,W]; steps of "auto" end by them.

    Raises:
        ValueError: settings and data do not fit each other.
        InputError: the loss is not finite any more.
        Interrupted: `resume.stopping()` said so; the state is saved.
    """
    run = Fitting(net, quantizer, features, prompts, prior, settings, attention)
    stopping = None
    if settings.steps == "auto":
        if validation is None or len(validation) != len(features):
            raise ValueError("steps of auto end by every picture's middle: give as many as there are pictures")
        stopping = Stopping(validation)
    state = resume.load() if resume is not None else None
    if state is not None:
        run.restore(state)
        if stopping is not None:
            stopping.restore(state["stopping"])
        if watch is not None:
            watch.restore(state["watch"])
    for _ in progress(range(run.step_number, run.last)):
        run.step()
        if watch is not None:
            watch(run.step_number, run.identifier.detach())
        if stopping is not None and stopping.look(run):
            run.end(soon=stopping.reason == ALIKE)
        if run.step_number == run.last:
            break
        due = resume is not None and (resume.stopping() or resume.due())
        if due or run.step_number % CHECKED == 0:
            run.check()
        if resume is not None and due:
            beside = {"watch": watch, "stopping": stopping}
            resume.save({**run.state(), **{name: own.state() if own is not None else {} for name, own in beside.items()}})
            if resume.stopping():
                raise Interrupted(f"stopped after step {run.step_number} of {run.last}")
    run.check()
    parameters = {name: p.detach() for name, p in run.parameters.items()}
    try:
        check_finite({"identifier": run.identifier.detach(), **parameters})
    except ValueError as error:
        rates = "finetune.learning_rate or finetune.identifier_learning_rate"
        raise InputError(f"the last step left {error}: lower {rates}") from None
    result = FitResult(parameters, run.identifier.detach(), run.history)
    if stopping is not None:
        result.stopped = stopping.reason or f"{MOST} steps are the most"
        for step, loss in stopping.validation.items():
            result.history[step - 1]["validation"] = loss
    return result
