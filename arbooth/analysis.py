"""Two analyses behind the method, on any base and subject: which layers move, and what each scale holds.

Source: ARBooth, sections 3.2 (selective layer tuning) and 3.3 (scale-wise weights).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data import caches
from arbooth.data.bases import EMBEDDED, load_base
from arbooth.data.files import whole_file
from arbooth.data.pictures import read_pictures
from arbooth.errors import InputError
from arbooth.method.fit import fit
from arbooth.method.layers import KINDS
from arbooth.method.seeds import generator
from arbooth.metrics.encoders import load_encoders
from arbooth.model.quantizer import Quantizer
from arbooth.params import Params, load_params
from arbooth.progress import track
from arbooth.settings import settings, torch_device
from arbooth.stages import TABLE, paths
from arbooth.stages.finetune import read_inputs
from arbooth.stages.prior import header as prior_header

WHOLE_KINDS = ("self_attention", "cross_attention", "feed_forward")


def _params_of(key: str) -> Params:
    here = settings()
    known = load_params(here.project / "params.yaml").subjects
    if key not in known:
        raise InputError(f"no subject {key!r} in params.yaml (known: {', '.join(known) or 'none yet'})")
    return load_params(here.project / "params.yaml", subject=key)


def layer_changes(key: str) -> list[dict]:
    """Tune every layer, then ask how far each kind moved: ||W' - W|| / ||W||, a row a block and kind.

    The recipe is that of params.yaml but for the layers.

    Raises:
        InputError: no such subject, or its caches are missing or stale.
    """
    params = _params_of(key)
    given = read_inputs(params, key, paths(TABLE["finetune"], key, params)[0])
    recipe = replace(given.recipe, layers=WHOLE_KINDS)
    device, attention = torch_device(), settings().attention
    net = given.base.transformer(device, params.compute)
    before = {name: value.detach().float().clone() for name, value in net.named_parameters()}
    progress = partial(track, label=f"tuning every layer on {key}")
    tokens = given.tokens
    result = fit(
        net,
        given.quantizer,
        tokens.features,
        tokens.prompt,
        given.prior,
        recipe,
        progress=progress,
        attention=attention,
    )
    return changes(before, result.parameters, net.config.depth)


def changes(before: dict[str, Tensor], after: dict[str, Tensor], depth: int) -> list[dict]:
    """Relative change of each layer kind in each block, over all its parameters together."""
    moved, size = defaultdict(float), defaultdict(float)
    for name, value in after.items():
        _, block, rest = name.split(".", 2)
        kind = next(k for k in WHOLE_KINDS if rest.startswith(KINDS[k]))
        moved[int(block), kind] += (value.float() - before[name].to(value.device)).square().sum().item()
        size[int(block), kind] += before[name].square().sum().item()
    return [
        {"block": block, "kind": kind, "change": (moved[block, kind] / size[block, kind]) ** 0.5}
        for block in range(depth)
        for kind in WHOLE_KINDS
    ]


def scale_changes(key: str, seeds: int = 4) -> list[dict]:
    """Replace the bits of one scale of the subject's photos, decode, and ask what is left of them.

    Two replacements: the bits of a sample of the class prior (`other`), and coin flips (`random`).

    Returns:
        A row a scale and replacement: cosine of the photos' image and joint features before and after, and the
        perceptual distance, each a mean over photos and seeds.

    Raises:
        InputError: no such subject, or its caches are missing or stale.
    """
    params, device = _params_of(key), torch_device()
    here = settings()
    base = load_base(params.base, here.project, here.path("weights"))
    quantizer = base.quantizer(params.picture.ratio, params.picture.pixels)
    images = paths(TABLE["tokenize"], key, params)[0]["images"]
    if not images.is_dir():
        raise InputError(f"{images} is not there: run `dvc repro preprocess@{key}`")
    pictures = read_pictures(sorted(images.glob("*.png"))).to(device)
    expected = prior_header(params, base, quantizer, params.subjects[key].class_name)
    others = caches.read_prior(paths(TABLE["finetune"], key, params)[0]["prior"], expected).bits.to(device)
    autoencoder = base.autoencoder(device)
    encoders = load_encoders(params.evaluate.encoders, EMBEDDED, settings().path("encoders"), device)
    with torch.inference_mode():
        bits = torch.cat([quantizer.encode(autoencoder.encode(p[None] * 2 - 1)).bits for p in pictures])
        whole = _decoded(autoencoder, quantizer, bits)
        rows = []
        work = [(scale, how) for scale in range(len(quantizer.schedule)) for how in ("other", "random")]
        for scale, how in track(work, f"replacing scales of {key}", len(work)):
            start, end = quantizer.schedule.spans[scale]
            values = defaultdict(list)
            for seed in range(seeds):
                draw = generator(params.seed, "scales", scale, seed)
                changed = bits.clone()
                if how == "other":
                    changed[:, start:end] = others[torch.randint(len(others), (len(bits),), generator=draw)][
                        :, start:end
                    ]
                else:
                    coins = torch.rand(changed[:, start:end].shape, generator=draw) < 0.5
                    changed[:, start:end] = coins.to(device)
                made = _decoded(autoencoder, quantizer, changed)
                for name, features in (("image", encoders.image_features), ("joint", encoders.joint_features)):
                    values[encoders.names[name]] += (features(whole) * features(made)).sum(1).tolist()
                values["distance"] += encoders.distance(whole, made).tolist()
            means = {name: sum(own) / len(own) for name, own in values.items()}
            h, w = quantizer.schedule.maps[scale]
            rows.append({"scale": scale + 1, "map": f"{h}x{w}", "replaced by": how, **means})
    return rows


def _decoded(autoencoder, quantizer: Quantizer, bits: Tensor) -> Tensor:
    codes = quantizer.inputs_from_bits(bits)[1]
    return torch.cat([autoencoder.decode(one[None]) for one in codes]) / 2 + 0.5


def plot_layers(path: Path, rows: list[dict]) -> None:
    """Change of each layer kind over the blocks."""
    lines = {kind: [row["change"] for row in rows if row["kind"] == kind] for kind in WHOLE_KINDS}
    _plot(path, "block", "relative change of the weights", range(len(rows) // len(WHOLE_KINDS)), lines)


def plot_scales(path: Path, rows: list[dict]) -> None:
    """What is left of the photos when one scale is replaced."""
    maps = [row["map"] for row in rows if row["replaced by"] == "other"]
    metrics = [name for name in rows[0] if name not in ("scale", "map", "replaced by", "distance")]
    lines = {
        f"{name}, {how} bits": [row[name] for row in rows if row["replaced by"] == how]
        for name in metrics
        for how in ("other", "random")
    }
    _plot(path, "scale that is replaced", "cosine to the unchanged picture", maps, lines)


def _plot(path: Path, x_label: str, y_label: str, ticks, lines: dict[str, list[float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for label, values in lines.items():
        axes.plot(range(len(values)), values, marker="o", label=label.replace("_", " "))
    axes.set_xticks(range(len(ticks)), [str(t) for t in ticks])
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
