"""What a base takes of a device's memory, told without the device and without the weights.

The pipeline's own code runs on fake tensors, which have shapes and no data; every storage that it makes is counted
while it lives. An allocator rounds and splits on top of that: leave a tenth of a card free.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arbooth.data.bases import Base, load_base
from arbooth.errors import InputError
from arbooth.method.fit import Batch, FitSettings, Fitting
from arbooth.method.optimizers import Optimizers
from arbooth.method.prior import ClassPrior
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.config import RELEASED, AutoencoderConfig, TransformerConfig
from arbooth.model.quantizer import Quantizer
from arbooth.model.sampling import Sampling, sample
from arbooth.model.schedule import Schedule
from arbooth.model.text import Prompt
from arbooth.model.transformer import DTYPES, Text, Transformer, kept_type

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.project import Project

GIB = 2**30
# What an allocator hands out is rounded up to this.
GRAIN = 512
# Tokens of a prompt, as long as people's are.
WORDS = 24
# Bytes of flan-t5-xl's encoder in float32, the text encoder of every published base.
FLAN_T5_XL = 4_894_109_696
# The share of a device that work may take: an allocator rounds and splits.
FREE = 0.9
# No way to use a base takes more than so many times the bytes of its files for each sample of a batch.
AT_MOST = 30
# Ways to need less in fine-tuning, the cheapest first.
LOW_RANK = 16
REMEDIES: tuple[tuple[str, object], ...] = (
    ("recompute", True), ("micro_batch", 1), ("optimizer", "adamw-8bit"), ("rank", LOW_RANK),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Sizes of a base at a picture's shape."""

    config: TransformerConfig
    autoencoder: AutoencoderConfig
    schedule: Schedule
    text_bytes: int

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.quantizer.maps[-1]
        return height * self.autoencoder.stride, width * self.autoencoder.stride

    @property
    def quantizer(self) -> Quantizer:
        return Quantizer(self.schedule, self.autoencoder.bits, self.config.bits == 4 * self.autoencoder.bits)


@dataclass(frozen=True)
class Peak:
    """The most that one kind of work holds at once, and what lies there all the time; bytes."""

    work: str
    total: int
    parts: dict[str, int]


class Counter(TorchDispatchMode):
    """Bytes of the storages that live, and the most that there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return made

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = -(-storage.nbytes() // GRAIN) * GRAIN
        self.now += self._known[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


def measured(work: str, prepare: Callable[[], Any], run: Callable[[Any, dict[str, int]], None]) -> Peak:
    """Run on fake tensors: `prepare` makes what lies there, `run` does the work and may name parts."""
    parts: dict[str, int] = {}
    with FakeTensorMode(allow_non_fake_inputs=True), Counter() as counter:
        things = prepare()
        parts["weights"] = counter.now
        counter.peak = counter.now
        run(things, parts)
        return Peak(work, counter.peak, parts)


def network(shape: Shape, compute: str, device: str = "cpu") -> Transformer:
    """A transformer as `load_transformer` leaves it, without values."""
    with torch.device("meta"):
        net = Transformer(shape.config, compute)
    return _filled(net, lambda name, value: kept_type(name, value, compute), device).requires_grad_(False)


def _filled(net: Any, type_of: Callable[[str, Tensor], torch.dtype], device: str) -> Any:
    """The network of the meta device with memory under it."""
    own = net.state_dict().items()
    state = {name: torch.empty(value.shape, dtype=type_of(name, value), device=device) for name, value in own}
    net.load_state_dict(state, assign=True)
    return net


class Undrawn(Fitting):
    """Fine-tuning whose samples are the first ones: numbers that are drawn have no values here."""

    def draw_batch(self, draw: torch.Generator) -> Batch:
        count = self.settings.batch
        tokens = self.quantizer.encode(self.features.expand(count, -1, -1, -1))
        classes = torch.zeros(count if self.prior is not None else 0, dtype=torch.long)
        return Batch(tokens, [0] * count, classes, self.quantizer.schedule)


def finetune_peak(shape: Shape, recipe: FitSettings, compute: str) -> Peak:
    """Forward, backward and optimizer; of two steps, since the first has no moments yet. Sample pictures come on top, and
    with Muon some hundred MiB on a GPU, which iterates on several matrices together."""
    passes = recipe.batch / recipe.micro_batch if recipe.micro_batch else 1
    if passes <= 3:
        return every_pass_peak(shape, recipe, compute)
    two, three = (every_pass_peak(shape, replace(recipe, batch=n * recipe.micro_batch), compute) for n in (2, 3))
    return replace(three, total=round(two.total + (passes - 2) * (three.total - two.total)))


def every_pass_peak(shape: Shape, recipe: FitSettings, compute: str) -> Peak:
    """The same by running all passes of a step: of many, each adds what it reads, and no more."""
    moments8, eight = 0, recipe.optimizer == "adamw-8bit"

    def run(net: Transformer, parts: dict[str, int]) -> None:
        nonlocal moments8
        fitting = Undrawn(net, shape.quantizer, features_of(shape), [prompt_of(shape)], prior_of(shape, recipe),
                          replace(recipe, optimizer="adamw" if eight else recipe.optimizer))  # fmt: skip
        trained = [fitting.identifier, *fitting.parameters.values()]
        if eight:  # its library's tensors can't be faked: they are added up below
            fitting.optimizer = Optimizers(torch.optim.SGD(trained, lr=0.0, foreach=False))
            moments8 = sum(map(moments_in_eight_bits, trained))
        for _ in range(2):
            fitting.step()
        state = [v for values in fitting.optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
        parts["weights"] = sum(_bytes(p) for p in {*net.parameters(), *trained})
        parts["moments"] = sum(map(_bytes, state)) + moments8
        parts["gradients"] = sum(map(_bytes, trained))

    peak = measured("finetune", lambda: network(shape, compute), run)
    return replace(peak, total=peak.total + moments8)


def moments_in_eight_bits(parameter: Tensor) -> int:
    """Two bytes a number and a scale for every 256; torchao keeps small or odd tensors in float32."""
    count = parameter.numel()
    return 2 * (count + count // 64) if count >= 4096 and count % 256 == 0 else 8 * count


def prior_peak(shape: Shape, compute: str) -> Peak:
    """One class sample, drawn without guidance; before it, the text encoder beside the network."""

    def run(net: Transformer, parts: dict[str, int]) -> None:
        painted(shape, net, Sampling(1.0, 0.5, 900, 0.97), 1)

    return _with_text(measured("prior", lambda: network(shape, compute), run), shape)


def tokenize_peak(shape: Shape) -> Peak:
    """One photo through the encoder; after it, the text encoder."""

    def run(net: Autoencoder, parts: dict[str, int]) -> None:
        with torch.no_grad():
            net.encode(torch.zeros(1, 3, *shape.picture))

    return _with_text(measured("tokenize", lambda: autoencoder_of(shape, "encoder", "float32"), run), shape)


def generate_peak(shape: Shape, compute: str, sampling: Sampling, batch: int) -> Peak:
    """`batch` pictures in a pass, decoded one by one; before it, the text encoder. Serving paints one at a time."""

    def prepare() -> tuple[Transformer, Autoencoder]:
        return network(shape, compute), autoencoder_of(shape, "decoder", compute)

    def run(nets: tuple[Transformer, Autoencoder], parts: dict[str, int]) -> None:
        codes = painted(shape, nets[0], sampling, batch)
        with torch.no_grad():
            to_uint8(nets[1].decode(codes[:1]))

    return _with_text(measured("generate, serve", prepare, run), shape)


def _with_text(peak: Peak, shape: Shape) -> Peak:
    """The text encoder is gone before the rest begins, or comes after it: the larger of the two counts."""
    return replace(peak, total=max(peak.total, peak.parts["weights"] + shape.text_bytes))


def painted(shape: Shape, net: Transformer, sampling: Sampling, batch: int) -> Tensor:
    features = prompt_of(shape).features.to(net.device)
    draws = [torch.Generator() for _ in range(batch)]
    plain = Text.stack([features] * 2 * batch)
    return sample(net, shape.quantizer, Text.stack([features] * batch), sampling, draws, plain=plain).codes


def prompt_of(shape: Shape) -> Prompt:
    return Prompt(torch.zeros(WORDS, shape.config.text_width), (4,))


def features_of(shape: Shape) -> Tensor:
    return torch.zeros(1, shape.autoencoder.bits, *shape.quantizer.maps[-1])


def prior_of(shape: Shape, recipe: FitSettings) -> ClassPrior | None:
    """Of one sample; it lies on the CPU, whatever its size."""
    if recipe.prior == "none":
        return None
    drawn = (1, shape.schedule.length, shape.quantizer.token_bits)
    margins = torch.zeros(drawn, dtype=torch.float16)
    zeros = margins if recipe.distillation == "joint" else None
    return ClassPrior(torch.zeros(drawn, dtype=torch.bool), margins, zeros, prompt_of(shape).features)


def autoencoder_of(shape: Shape, part: str, compute: str, device: str = "cpu") -> Autoencoder:
    with torch.device("meta"):
        net = Autoencoder(shape.autoencoder).only(part)
    return _filled(net, lambda name, _: DTYPES[compute], device).requires_grad_(False)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# What a machine can do with it


def shape_of(base: Base) -> Shape:
    text = base.record["files"]["text"].get("bytes", 0)
    return Shape(base.config, base.autoencoder_config, base.schedule, _text_bytes(base.config.text_width, text))


def released(name: str, ratio: float, pixels: str) -> Shape:
    """Raises InputError: no network of that name is published."""
    if name not in RELEASED:
        raise InputError(f"no base {name!r} here, and none of {', '.join(RELEASED)} either")
    config, autoencoder = RELEASED[name]
    schedule = Schedule.named(ratio, "1M" if pixels == "default" else pixels)
    return Shape(config, autoencoder, schedule, _text_bytes(config.text_width, 0))


def _text_bytes(width: int, on_disk: int) -> int:
    """The encoder computes in float32, in whatever type its file is: of flan-t5-xl the size is known."""
    return FLAN_T5_XL if width == 2048 else on_disk


def peaks(shape: Shape, params: Params) -> list[Peak]:
    """Every stage's."""
    return [
        tokenize_peak(shape),
        prior_peak(shape, params.compute),
        finetune_peak(shape, FitSettings(**params.recipe), params.compute),
        generate_peak(shape, params.compute, Sampling(**params.sampling), params.generate.batch),
    ]


def misfits(base: Base, params: Params, memory: int) -> list[str]:
    """What of a project's work does not fit a device, a sentence each with what would; subjects differ by their overrides."""
    limit = int(memory * FREE)
    of_each = [(name, params.of_subject(name)) for name in params.subjects] or [("", params)]
    most = max(max(2, each.finetune.batch, each.generate.batch) for _, each in of_each)
    if sum(entry.get("bytes", 0) for entry in base.record["files"].values()) * AT_MOST * most < limit:
        return []  # however it is used
    asked: dict[str, tuple[Params, list[str]]] = {}
    for name, each in of_each:
        asked.setdefault(repr((each.finetune, each.generate)), (each, []))[1].append(name)
    said: dict[str, None] = {}  # what is the same for all is said once
    for each, names in asked.values():
        whose = f" of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if len(asked) > 1 else ""
        for peak in peaks(shape_of(base), each):
            if peak.total > limit:
                remedy = _remedy(base, each, limit) if peak.work == "finetune" else ""
                work = peak.work + (whose if peak.work not in ("tokenize", "prior") else "")
                needs = f"{work} needs {peak.total / GIB:.1f} GiB of memory and this device has {memory / GIB:.1f}"
                said[f"{needs}: {remedy or 'set picture.pixels to fewer, or use another device'}"] = None
    return list(said)


def _remedy(base: Base, params: Params, limit: int) -> str:
    """The first of the ways to need less, each on top of those before it, that is enough."""
    shape, done = shape_of(base), FitSettings(**params.recipe)
    names: list[str] = []
    for name, value in REMEDIES:
        if getattr(done, name) == value or (name, done.optimizer) == ("optimizer", "muon"):  # whose rate AdamW can't have
            continue
        if name == "rank" and 0 < done.rank < LOW_RANK:  # which needs less already
            continue
        done = replace(done, **{name: value})
        names.append(f"finetune.{name}={str(value).lower()}")
        if finetune_peak(shape, done, params.compute).total <= limit:
            lowered = done.rank and not params.finetune.rank
            more = " and a larger finetune.learning_rate, which low rank wants" if lowered else ""
            return f"set {' '.join(names)}{more}"
    return ""


def report(project: Project, name: str, ratio: float | None, pixels: str, overrides: Sequence[str]) -> list[str]:
    """A table of every stage's peak, for a base of the project or a published one, at the parameters' picture or another.

    A published one that the project does not use is told with its own recipe.

    Raises:
        InputError: no such base, shape or parameter.
    """
    from arbooth.params import load_params
    from arbooth.recipes import names, params_of

    if name in project.base_names():
        params = project.params(overrides=overrides)
        asked = (ratio or params.picture.ratio, pixels or params.picture.pixels)
        shape = shape_of(load_base(name, project.bases, project.weights, *asked))
    else:
        text = params_of(name if name in names() else "infinity-2b")
        params = load_params(f"recipe {name}", text=text, overrides=overrides)
        shape = released(name, ratio or params.picture.ratio, pixels or params.picture.pixels)
    batch = params.finetune.batch
    height, width = shape.picture
    lines = [f"{name} at {width}x{height} ({shape.schedule.length} tokens), {params.compute}, batch {batch}"]
    lines.append(f"{'GiB':<16}{'peak':>8}{'weights':>10}{'moments':>10}{'gradients':>11}{'text encoder':>14}")
    for peak in peaks(shape, params):
        kept = "".join(
            f"{_gib(peak.parts.get(part)):>{size}}"
            for part, size in (("weights", 10), ("moments", 10), ("gradients", 11))
        )
        text_of = "-" if peak.work == "finetune" else _gib(shape.text_bytes)
        lines.append(f"{peak.work:<16}{_gib(peak.total):>8}{kept}{text_of:>14}")
    return lines


def _gib(count: int | None) -> str:
    return "-" if count is None else f"{count / GIB:.2f}"
