"""Timings side by side, in one process and run: this project's training step and the published one.

Both fine-tune the same layers of the same network with the same batch of photos and class samples.
The published way encodes photos and prompts anew, samples the teacher through all scales, recomputes
activations and steps the optimizer twice; here photos, prompts and the teacher come from caches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from arbooth.data.adapters import Adapter
from arbooth.data.bases import Base
from arbooth.data.files import write_json
from arbooth.data.networks import load_autoencoder, load_text_encoder, load_transformer, quantizer_of
from arbooth.method import losses
from arbooth.method.fit import FitSettings, Fitting
from arbooth.method.optimizers import optimizer_of
from arbooth.method.prior import draw_prior
from arbooth.method.seeds import generator
from arbooth.method.stopping import EVERY
from arbooth.method.tuning import KINDS
from arbooth.model.sampling import Sampling, sample
from arbooth.model.transformer import Text
from arbooth.painting.painter import Painter
from arbooth.params import Params
from arbooth.progress import track
from arbooth.project import Project

SUBJECT, CLASS = "a photo of <S*> cat", "a photo of cat"


class Clock:
    """Sums seconds by part; waits for the device before it reads the time."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.parts = device, {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self.parts.setdefault(name, []).append(self._now() - started)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Bench:
    """The networks, photos and prompts that both kinds of step share."""

    def __init__(self, base: Base, recipe: FitSettings, params: Params, device: torch.device) -> None:
        drawn, compute = params.prior, params.compute
        self.device, self.recipe = device, recipe
        self.prior_sampling = prior = Sampling(1.0, drawn.temperature, drawn.top_k, drawn.top_p)
        self.net, self.teacher = load_transformer(base, device, compute), load_transformer(base, device, compute)
        self.autoencoder, self.encoder = load_autoencoder(base, device), load_text_encoder(base, device)
        self.quantizer = quantizer_of(base)
        height, width = base.picture_size
        self.photos = torch.rand(4, 3, height, width, generator=generator(0, "photos")).to(device) * 2 - 1
        with torch.no_grad():
            features = self.autoencoder.encode(self.photos)
        cached = draw_prior(
            self.teacher, self.quantizer, self.encoder.encode(CLASS).features, 2 * recipe.batch, prior, 0
        )
        self.fitting = Fitting(self.net, self.quantizer, features, [self.encoder.encode(SUBJECT)] * len(features), cached, recipe)
        trained, rates = list(self.fitting.parameters.values()), (recipe.identifier_learning_rate, recipe.learning_rate)
        self.published = optimizer_of("adamw")(self.fitting.identifier, trained, rates, recipe.betas, recipe.weight_decay)

    def cached_step(self, clock: Clock, number: int) -> None:
        """What `Fitting.step` does, with a clock around each part."""
        run = self.fitting
        draw = generator(0, "bench", number)
        run.optimizer.zero_grad(set_to_none=True)
        parts = run.losses(run.draw_batch(draw))
        while True:
            with clock.part("forward"):
                loss, _ = next(parts, (None, None))
            if loss is None:
                break
            with clock.part("backward"):
                loss.backward()
        with clock.part("optimizer"):
            run.optimizer.step()

    def published_step(self, clock: Clock, number: int) -> None:
        """Subject step, then prior step, each with its own backward pass and optimizer step."""
        run, batch = self.fitting, self.recipe.batch
        draw = generator(0, "bench", number)
        chosen = torch.randint(len(self.photos), (batch,), generator=draw).to(self.device)
        with clock.part("encode photos"), torch.no_grad():
            features = self.autoencoder.encode(self.photos[chosen])
        with clock.part("encode prompts"):
            subject, class_prompt = self.encoder.encode(SUBJECT), self.encoder.encode(CLASS)
        tokens = self.quantizer.encode(features, correction=run.correction, generator=draw)
        text = Text.stack([subject.with_subject(run.identifier)] * batch)
        self._optimize(
            clock,
            text,
            tokens.inputs,
            lambda out: losses.weighted_loss(losses.cross_entropy(out, tokens.bits), run.weights),
        )
        text = Text.stack([class_prompt.features] * batch)
        with clock.part("sample the teacher"):
            drawn = sample(
                self.teacher,
                self.quantizer,
                text,
                self.prior_sampling,
                [generator(0, "bench", number, i) for i in range(batch)],
                keep_logits=True,
            )
        margins = drawn.logits[..., 1] - drawn.logits[..., 0]
        inputs, _ = self.quantizer.inputs_from_bits(drawn.bits)
        weight = self.recipe.prior_weight
        self._optimize(clock, text, inputs, lambda out: weight * losses.bernoulli_distillation(out, margins).mean())

    def _optimize(self, clock: Clock, text: Text, inputs: torch.Tensor, loss_of: Callable) -> None:
        self.published.zero_grad(set_to_none=True)
        with clock.part("forward"):
            loss = loss_of(self.net(text, inputs, self.quantizer.schedule, recompute=True))
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            self.published.step()


def report(project: Project, steps: int, out: Path | None = None) -> list[str]:
    """Run the benchmark; lines for people, and JSON for programs if asked."""
    params, device = project.params(), project.device
    base, recipe = project.base(params), FitSettings(**params.recipe)
    numbers = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "base": base.name,
        "batch": recipe.batch,
        "steps": steps,
    }
    bench = Bench(base, recipe, params, device)
    cached, published = Clock(device), Clock(device)
    for number in track(range(steps + 1), "bench"):
        if number == 1:  # the first round warms up
            cached.parts, published.parts = {}, {}
        with cached.part("step"):
            bench.cached_step(cached, number)
        with published.part("step"):
            bench.published_step(published, number)
    numbers["cached"], numbers["published"] = _per_step(cached, steps), _per_step(published, steps)
    numbers["speedup"] = numbers["published"]["step"] / numbers["cached"]["step"]
    numbers |= _image_seconds(base, params, bench.fitting)
    numbers["finetune_steps"] = EVERY if recipe.steps == "auto" else recipe.steps  # how many those are is not known before
    numbers["finetune_seconds"] = _finetune_seconds(bench, recipe, numbers["finetune_steps"])
    if out is not None:
        write_json(out, numbers)
    return _lines(numbers)


def _per_step(clock: Clock, steps: int) -> dict[str, float]:
    """Mean seconds per step of each part; steps may differ, say in which scales they run."""
    return {name: sum(values) / steps for name, values in clock.parts.items()}


def _image_seconds(base: Base, params: Params, run: Fitting) -> dict[str, float]:
    """Seconds of a picture in turn: of the subject and of its class as params.yaml has it, and of the class the published
    way, which computes every token with and without text and decodes in float32.
    """
    device, kind = run.net.device, run.settings.kind
    painter = Painter(base, params.sampling, device, params.compute)
    tuned = KINDS[kind].saved({name: value.detach() for name, value in run.parameters.items()}, params.compute)
    adapter = Adapter(run.identifier.detach().cpu(), tuned, base.hash, "bench", "cat", {}, kind)
    painter.adapters[adapter.subject] = (adapter, "")
    given, decoder = painter.sampling(), painter.autoencoder
    strongest = max(given.guidance) if isinstance(given.guidance, tuple) else given.guidance
    published = replace(given, guidance=strongest, token_share=1.0)
    ways = {
        "seconds_per_image": (SUBJECT, given, decoder, adapter.subject),
        "seconds_per_class_image": (CLASS, given, decoder, None),
        "seconds_per_image_published": (CLASS, published, load_autoencoder(base, device), None),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(6):
        for name, (prompt, sampling, painter.autoencoder, subject) in ways.items():
            found[name].append(painter.paint([(prompt, index)], 0, sampling, subject)[0].seconds)
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}  # the first warms up


def _finetune_seconds(bench: Bench, recipe: FitSettings, steps: int) -> float:
    """A whole run with the defaults of params.yaml, from caches."""
    run = Fitting(bench.teacher, bench.quantizer, bench.fitting.features, bench.fitting.prompts, bench.fitting.prior, recipe)
    started = time.perf_counter()
    for _ in track(range(steps), "finetune"):
        run.step()
    return time.perf_counter() - started


def _lines(numbers: dict) -> list[str]:
    lines = [
        f"base {numbers['base']} on {numbers['device']}, {numbers['threads']} threads, batch {numbers['batch']} photos "
        f"and {numbers['batch']} class samples, mean of {numbers['steps']} steps",
        f"an image of the subject   {numbers['seconds_per_image']:.3f} s, of its class {numbers['seconds_per_class_image']:.3f} s, "
        f"that the published way {numbers['seconds_per_image_published']:.3f} s",
        f"finetune, {numbers['finetune_steps']} steps       {numbers['finetune_seconds']:.1f} s (defaults of params.yaml)",
        "",
        f"{'milliseconds per step':<24}{'from caches':>14}{'published way':>16}",
    ]
    for name in dict.fromkeys([*numbers["published"], *numbers["cached"]]):
        if name != "step":
            ours, theirs = numbers["cached"].get(name), numbers["published"].get(name)
            lines.append(f"  {name:<22}{_ms(ours):>14}{_ms(theirs):>16}")
    lines.append(f"  {'whole step':<22}{_ms(numbers['cached']['step']):>14}{_ms(numbers['published']['step']):>16}")
    lines.append(f"from caches a step is {numbers['speedup']:.2f} times faster")
    return lines


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"
