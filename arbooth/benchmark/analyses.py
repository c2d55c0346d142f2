"""Two analyses behind the method, on any base and subject: which layers move, and what each scale holds.

Source: ARBooth, sections 3.2 (selective layer tuning) and 3.3 (scale-wise weights).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data.files import whole_file
from arbooth.data.networks import load_autoencoder, load_transformer, quantizer_of
from arbooth.data.pictures import read_pictures
from arbooth.data.priors import read_prior
from arbooth.errors import InputError
from arbooth.method.fit import fit
from arbooth.method.layers import LAYERS, WHOLE_LAYERS
from arbooth.method.seeds import generator
from arbooth.method.tuning import KINDS
from arbooth.metrics.encoders import load_encoders
from arbooth.metrics.judge import load_judge
from arbooth.model.quantizer import Quantizer
from arbooth.progress import track
from arbooth.project import Project
from arbooth.stages.finetune import read_inputs
from arbooth.stages.prior import header as prior_header


def over_subjects(project: Project, measure: Callable[[Project, str], list[dict]], keys: list[str]) -> list[dict]:
    """`averaged` rows of several subjects.

    Raises:
        InputError: a subject is not there, or they are measured by different encoders.
    """
    if len({project.params(key).evaluate.encoders for key in keys}) > 1:
        raise InputError(f"{', '.join(keys)} have different evaluate.encoders: analyse them apart")
    return averaged([measure(project, key) for key in keys])


def averaged(tables: list[list[dict]]) -> list[dict]:
    """Rows of one table, or means over several with how far they differ (their standard deviation)."""
    if len(tables) == 1:
        return tables[0]
    rows = []
    for same in zip(*tables, strict=True):
        row = dict(same[0])
        for name in [name for name, value in same[0].items() if isinstance(value, float)]:
            values = torch.tensor([one[name] for one in same])
            row |= {name: values.mean().item(), f"{name} std": values.std().item()}
        rows.append(row)
    return rows


def layer_changes(project: Project, key: str, overrides: Sequence[str] = ()) -> list[dict]:
    """Tune every layer, then ask how far each kind moved: ||W' - W|| / ||W||, a row a block and kind.

    The recipe is that of params.yaml, with overrides, but for the layers; of low-rank adapters the product is what moved.

    Raises:
        InputError: no such subject, or its caches are missing or stale.
    """
    params = project.params(key, overrides)
    given = read_inputs(params, project.base(params), key, project.paths("finetune", key, params)[0])
    net = load_transformer(given.base, project.device, params.compute)
    before = {name: value.detach().float().clone() for name, value in net.named_parameters()}
    result = fit(
        net,
        quantizer_of(given.base),
        given.tokens.features,
        given.tokens.prompt_of_each(),
        given.prior,
        replace(given.recipe, layers=WHOLE_LAYERS),
        progress=partial(track, label=f"tuning every layer on {key}"),
        attention=project.settings.attention,
        validation=given.tokens.validation,
    )
    return changes(before, KINDS[given.recipe.kind].become(result.parameters, before), net.config.depth)


def changes(before: dict[str, Tensor], after: Iterable[tuple[str, Tensor]], depth: int) -> list[dict]:
    """Relative change of each layer kind in each block, over all its parameters together."""
    moved, size = defaultdict(float), defaultdict(float)
    for name, value in after:
        _, block, rest = name.split(".", 2)
        kind = next(layer for layer in WHOLE_LAYERS if rest.startswith(LAYERS[layer]))
        moved[int(block), kind] += (value.float() - before[name].to(value.device)).square().sum().item()
        size[int(block), kind] += before[name].square().sum().item()
    return [
        {"block": block, "kind": kind, "change": (moved[block, kind] / size[block, kind]) ** 0.5}
        for block in range(depth)
        for kind in WHOLE_LAYERS
    ]


def scale_ranges(scales: int) -> list[tuple[str, int, int]]:
    """Each scale alone, the first k and the last k: (kind, first, one past the last), all scales at once left out."""
    alone = [("alone", k, k + 1) for k in range(scales)]
    return alone + [("up to", 0, k) for k in range(1, scales)] + [("from", k, scales) for k in range(1, scales)]


def scale_changes(project: Project, key: str, seeds: int = 4) -> list[dict]:
    """Replace the bits of a range of scales of the subject's photos, decode, and ask what is left of them.

    Two replacements: the bits of a sample of the class prior (`other`), and coin flips (`random`).

    Returns:
        A row a range and replacement: cosine of the photos' image and joint features before and after, the perceptual
        distance and, with the embedded encoders, how often the judge still sees the same scene; means over photos
        and seeds.

    Raises:
        InputError: no such subject, or its caches are missing or stale.
    """
    params, device = project.params(key), project.device
    base = project.base(params)
    quantizer = quantizer_of(base)
    images = project.paths("tokenize", key, params)[0]["images"]
    if not images.is_dir():
        raise InputError(f"{images} is not there: run `dvc repro preprocess@{key}`")
    pictures = read_pictures(sorted(images.glob("*.png"))).to(device)
    expected = prior_header(params, base, params.class_of(key))
    others = read_prior(project.paths("finetune", key, params)[0]["prior"], expected, quantizer).bits.to(device)
    autoencoder = load_autoencoder(base, device)
    with torch.inference_mode():
        bits = torch.cat([quantizer.encode(autoencoder.encode(p[None] * 2 - 1)).bits for p in pictures])
        likeness = _Likeness(project, params.evaluate.encoders, _decoded(autoencoder, quantizer, bits))
        rows = []
        work = [(span, how) for span in scale_ranges(len(quantizer.schedule)) for how in ("other", "random")]
        for (kind, first, last), how in track(work, f"replacing scales of {key}", len(work)):
            spans, values = quantizer.schedule.spans, defaultdict(list)
            start, end = spans[first][0], spans[last - 1][1]
            for seed in range(seeds):
                draw = generator(params.seed, "scales", first, last, seed)
                changed = bits.clone()
                if how == "other":
                    chosen = torch.randint(len(others), (len(bits),), generator=draw)
                    changed[:, start:end] = others[chosen][:, start:end]
                else:
                    coins = torch.rand(changed[:, start:end].shape, generator=draw) < 0.5
                    changed[:, start:end] = coins.to(device)
                for name, alike in likeness(_decoded(autoencoder, quantizer, changed)).items():
                    values[name] += alike
            means = {name: sum(alike) / len(alike) for name, alike in values.items()}
            named = str(first + 1) if last == first + 1 else f"{first + 1}-{last}"
            rows.append({"range": kind, "scales": named, "replaced by": how, **means})
    return rows


class _Likeness:
    """How alike other pictures are to the given ones, in every way that the encoders offer."""

    def __init__(self, project: Project, encoders: str, pictures: Tensor) -> None:
        self.encoders = load_encoders(encoders, project.encoders, pictures.device)
        self.judge = load_judge().to(pictures.device) if encoders == "embedded" else None
        self.pictures = pictures
        self.features = {
            self.encoders.names[way]: (measure, measure(pictures))
            for way, measure in (("image", self.encoders.image_features), ("joint", self.encoders.joint_features))
        }
        self.scenes = [one["scene"] for one in self.judge.answers(pictures)] if self.judge else []

    def __call__(self, others: Tensor) -> dict[str, list[float]]:
        values = {name: (before * measure(others)).sum(1).tolist() for name, (measure, before) in self.features.items()}
        values["distance"] = self.encoders.distance(self.pictures, others).tolist()
        if self.judge:
            said = self.judge.answers(others)
            values["scene"] = [float(one["scene"] == scene) for one, scene in zip(said, self.scenes)]
        return values


def _decoded(autoencoder, quantizer: Quantizer, bits: Tensor) -> Tensor:
    codes = quantizer.inputs_from_bits(bits)[1]
    return torch.cat([autoencoder.decode(one[None]) for one in codes]) / 2 + 0.5


def plot_layers(path: Path, rows: list[dict]) -> None:
    """Change of each layer kind over the blocks."""
    lines = {kind.replace("_", " "): [row["change"] for row in rows if row["kind"] == kind] for kind in WHOLE_LAYERS}
    ticks = [str(block) for block in range(len(rows) // len(WHOLE_LAYERS))]
    _plot(path, "block", {"relative change of the weights": (ticks, lines)})


def plot_scales(path: Path, rows: list[dict]) -> None:
    """What is left of the photos when a range of scales is replaced, one panel a kind of range."""
    metrics = [name for name, value in rows[0].items() if isinstance(value, float) and not name.endswith(" std")]
    panels = {}
    for kind in ("alone", "up to", "from"):
        ranges = [row for row in rows if row["range"] == kind]
        lines = {
            f"{name}, {how} bits": [row[name] for row in ranges if row["replaced by"] == how]
            for name in metrics
            if name != "distance"
            for how in ("other", "random")
        }
        ticks = [row["scales"] for row in ranges if row["replaced by"] == "other"]
        panels[f"likeness to the unchanged picture, {kind}"] = (ticks, lines)
    _plot(path, "scales that are replaced", panels)


def _plot(path: Path, x_label: str, panels: dict[str, tuple[list[str], dict[str, list[float]]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 + 4.4 * len(panels), 3.6), dpi=120, layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, (ticks, lines)) in zip(row, panels.items()):
        for name, values in lines.items():
            axes.plot(range(len(values)), values, marker="o", label=name)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set(xlabel=x_label, ylabel=label)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
