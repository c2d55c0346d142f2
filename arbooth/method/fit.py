"""Fine-tuning: a plain function of tensors (ARBooth, section 3).

Neither the teacher, nor the tokenizer, nor the text encoder is needed here: the subject comes as raw
features, the prior as cached token maps with the teacher's logits.

Shape suffixes: B batch, L tokens, P bits of a token, T text tokens, F text width, N identifier rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from arbooth.errors import InputError, Interrupted
from arbooth.method import losses
from arbooth.method.prior import ClassPrior
from arbooth.method.seeds import generator
from arbooth.method.tuning import KINDS, check_finite
from arbooth.model.quantizer import Quantizer, SelfCorrection
from arbooth.model.text import Prompt
from arbooth.model.transformer import Text, Transformer


@dataclass(frozen=True)
class FitSettings:
    """The recipe; names are those of params.yaml's `finetune` and `methods` sections."""

    steps: int
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
    kind: str = "full"  # of method.tuning.KINDS


class Resume(Protocol):
    """Where an unfinished run is kept; `data.resume.ResumeFile` is the one on disk."""

    def load(self) -> dict | None: ...

    def save(self, state: dict) -> None: ...

    def due(self) -> bool: ...

    def stopping(self) -> bool: ...


@dataclass
class FitResult:
    """What was trained: tensors of an adapter by name, the identifier [N,F], and one row of losses per step."""

    parameters: dict[str, Tensor]
    identifier: Tensor
    history: list[dict[str, float]]


class Fitting:
    """A fine-tuning run: the network, what is trained of it, its data and its optimizer."""

    def __init__(
        self,
        net: Transformer,
        quantizer: Quantizer,
        features: Tensor,
        prompt: Prompt,
        prior: ClassPrior | None,
        settings: FitSettings,
        attention: str = "scales",
    ) -> None:
        if settings.prior != "none" and prior is None:
            raise ValueError(f"prior is {settings.prior!r}, but no class prior is given")
        self.net, self.quantizer, self.settings, self.attention = net, quantizer, settings, attention
        device = net.device
        self.features, self.prompt = features.to(device), Prompt(prompt.features.to(device), prompt.identifier_rows)
        self.prior = prior if settings.prior != "none" else None
        self.parameters = KINDS[settings.kind].attach(net, settings.layers)
        shape = (settings.identifier_tokens, net.config.text_width)
        self.identifier = torch.zeros(shape, device=device, requires_grad=True)
        self.weights = torch.ones(quantizer.schedule.length, device=device)
        if settings.scale_weights:
            self.weights = losses.token_weights(
                quantizer.schedule, settings.coarse_scales, settings.coarse_weight, settings.fine_weight
            ).to(device)
        self.correction = SelfCorrection(settings.correction_strength, settings.correction_scales)
        groups = [{"params": [self.identifier], "lr": settings.identifier_learning_rate}]
        if self.parameters:
            groups.append({"params": list(self.parameters.values()), "lr": settings.learning_rate})
        self.optimizer = torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay)
        self.step_number = 0
        self.history: list[dict[str, float]] = []

    def step(self) -> dict[str, float]:
        """One optimizer step for both losses together; returns the step's row of the history."""
        settings, rows = self.settings, []
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(settings.accumulate):
            # Draws depend on the step alone: a resumed run needs no generator state to repeat them.
            draw = generator(settings.seed, "fit", self.step_number, part)
            loss, row = self.loss(draw)
            if loss.requires_grad:  # not where the identifier alone is trained and every text was dropped
                (loss / settings.accumulate).backward()
            rows.append(row)
        self.optimizer.step()
        self.step_number += 1
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        self.history.append({"step": self.step_number, **mean})
        return self.history[-1]

    def loss(self, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy on the subject plus the prior's loss, from one forward pass."""
        settings, schedule = self.settings, self.quantizer.schedule
        inputs_BLP, target_BLP, prompts = self._subject_batch(draw)
        if self.prior is not None:
            chosen, class_inputs, class_prompts = self._prior_batch(self.prior, draw)
            inputs_BLP, prompts = torch.cat([inputs_BLP, class_inputs]), prompts + class_prompts
        text = Text.stack(prompts)
        logits = self.net(text, inputs_BLP, schedule, recompute=settings.recompute, backend=self.attention)
        token_loss_BL = losses.cross_entropy(logits[: settings.batch], target_BLP)
        subject = losses.weighted_loss(token_loss_BL, self.weights)
        prior, total = torch.zeros_like(subject), subject
        if self.prior is not None:
            prior = self._prior_loss(self.prior, logits[settings.batch :], chosen)
            total = subject + settings.prior_weight * prior
        scales = losses.scale_means(token_loss_BL, schedule)
        names = ["loss", "subject", *(f"scale_{k + 1}" for k in range(len(scales))), "prior"]
        # One transfer from the device for all that a step reports.
        values = torch.cat([torch.stack([total, subject]).detach(), scales, prior.detach()[None]]).tolist()
        return total, dict(zip(names, values))

    def _subject_batch(self, draw: torch.Generator) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Photos drawn with replacement, bits flipped anew, the text dropped now and then."""
        batch = self.settings.batch
        photos = torch.randint(len(self.features), (batch,), generator=draw)
        tokens = self.quantizer.encode(
            self.features[photos.to(self.features.device)], correction=self.correction, generator=draw
        )
        text = self.prompt.with_subject(self.identifier)
        dropped = torch.rand(batch, generator=draw) < self.settings.drop_text
        nothing = self.net.no_text[: len(text)].to(text.dtype)
        return tokens.inputs, tokens.bits, [nothing if drop else text for drop in dropped.tolist()]

    def _prior_batch(self, prior: ClassPrior, draw: torch.Generator) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Cached class samples: their rows, their teacher-forcing inputs and the class prompt."""
        chosen = torch.randint(len(prior.bits), (self.settings.batch,), generator=draw)
        inputs, _ = self.quantizer.inputs_from_bits(prior.bits[chosen].to(self.net.device))
        return chosen, inputs, [prior.features.to(self.net.device)] * len(chosen)

    def _prior_loss(self, prior: ClassPrior, logits: Tensor, chosen: Tensor) -> Tensor:
        device = self.net.device
        if self.settings.prior == "data":
            return losses.cross_entropy(logits, prior.bits[chosen].to(device)).mean()
        margins = prior.margins[chosen].to(device, torch.float32)
        if self.settings.distillation == "bernoulli":
            return losses.bernoulli_distillation(logits, margins)
        if prior.zeros is None:
            raise ValueError("joint distillation needs a class prior drawn with keep_pairs")
        zeros = prior.zeros[chosen].to(device, torch.float32)
        return losses.joint_distillation(logits, torch.stack([zeros, zeros + margins], dim=-1))

    def state(self) -> dict:
        """Everything that a resumed run needs."""
        return {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "identifier": self.identifier.detach(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
            "history": self.history,
        }

    def restore(self, state: dict) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
            self.identifier.copy_(state["identifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number, self.history = state["step"], list(state["history"])


def fit(
    net: Transformer,
    quantizer: Quantizer,
    features: Tensor,
    prompt: Prompt,
    prior: ClassPrior | None,
    settings: FitSettings,
    *,
    resume: Resume | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    attention: str = "scales",
) -> FitResult:
    """Fine-tune `net` in place on one subject.

    Args:
        net: the frozen base transformer, on its device.
        quantizer: of the base's schedule.
        features: raw features of the photos [B,D,H,W].
        prompt: features of the training prompt, with the rows of the identifier.
        prior: cached class samples; None where `settings.prior` is "none".
        settings: the recipe.
        resume: keeps unfinished runs; a run that resumes ends with the same bits.
        progress: wraps the range of steps that are left.
        attention: kernel of the block-causal attention.

    Raises:
        ValueError: settings and data do not fit each other.
        InputError: the loss is not finite any more.
        Interrupted: `resume.stopping()` said so; the state is saved.
    """
    run = Fitting(net, quantizer, features, prompt, prior, settings, attention)
    state = resume.load() if resume is not None else None
    if state is not None:
        run.restore(state)
    for _ in progress(range(run.step_number, settings.steps)):
        row = run.step()
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"the loss is {row['loss']} at step {run.step_number}: lower finetune.learning_rate, "
                "finetune.identifier_learning_rate or finetune.prior_weight"
            )
        if resume is not None and (resume.stopping() or resume.due()):
            resume.save(run.state())
            if resume.stopping():
                raise Interrupted(f"stopped after step {run.step_number} of {settings.steps}")
    parameters = {name: p.detach() for name, p in run.parameters.items()}
    try:
        check_finite({"identifier": run.identifier.detach(), **parameters})
    except ValueError as error:
        rates = "finetune.learning_rate or finetune.identifier_learning_rate"
        raise InputError(f"the last step left {error}: lower {rates}") from None
    return FitResult(parameters, run.identifier.detach(), run.history)
