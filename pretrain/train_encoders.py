"""Train what measures pictures of the world: embedded encoders and the judge, on rendered pictures only."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arbooth.method.muon import has_bfloat16
from arbooth.metrics.embedded import EmbeddedEncoders
from arbooth.metrics.judge import Judge
from arbooth.settings import torch_device
from pretrain.art import ACCESSORIES, CLASSES
from pretrain.ledger import Ledger
from pretrain.optimize import optimizers, run
from pretrain.scenes import SCENES
from pretrain.words import word_list
from pretrain.world import COLOURS, PLACES, SIZES, View, caption

NONE = "none"
UNTOLD = -100  # which cross-entropy leaves out


def labels() -> dict[str, list[str]]:
    """The judge's questions and their answers."""
    return {
        "class": list(CLASSES),
        "scene": list(SCENES),
        "colour": [NONE, *COLOURS],
        "accessory": [NONE, *ACCESSORIES],
        "size": [NONE, *SIZES],
        "place": [NONE, *PLACES],
        "beside": [NONE, *CLASSES],
    }


def shown(view: View) -> dict[str, str]:
    """The right answers for a view."""
    return {
        "class": view.drawing.noun,
        "scene": view.scene,
        "colour": view.colour or NONE,
        "accessory": view.accessory or NONE,
        "size": view.size or NONE,
        "place": view.place or NONE,
        "beside": view.beside.noun if view.beside else NONE,
    }


def identity(view: View) -> str:
    """Pictures show the same subject when drawing and colour agree."""
    return f"{view.drawing.name} {view.colour}"


class Trained(nn.Module):
    """Encoders and judge with what only their training needs: a centre for every identity."""

    def __init__(self, identities: int) -> None:
        super().__init__()
        self.encoders, self.judge = EmbeddedEncoders(word_list()), Judge(labels())
        self.centres = nn.Parameter(torch.randn(identities, 128) * 0.1)
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0)))


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Every convolution but those that read pixels."""
    return parameter.ndim == 4 and parameter.shape[1] > 3


def train(
    pictures: np.ndarray,
    views: list[View],
    others: np.ndarray,
    other_views: list[View],
    folder: Path,
    *,
    steps: int,
    decay: int,
    batch: int,
    rate: float,
    seed: int,
    ledger: Ledger | None = None,
) -> None:
    """Train or go on training; the resume file lies in `folder`.

    Args:
        pictures, views: of the world, for everything.
        others, other_views: of drawings that captions can't name: half as many a step, for the subject tower alone,
            which must tell apart drawings that nothing was trained on.
    """
    torch.manual_seed(seed)
    numbers = {name: i for i, name in enumerate(sorted({identity(v) for v in [*views, *other_views]}))}
    device = torch_device()
    net = Trained(len(numbers)).to(device, memory_format=torch.channels_last)
    # Of two things in a picture neither is its subject.
    subjects = torch.tensor([UNTOLD if v.beside else numbers[identity(v)] for v in [*views, *other_views]]).to(device)
    answers = {
        q: torch.tensor([own.index(shown(v)[q]) for v in views]).to(device) for q, own in net.judge.labels.items()
    }
    right: dict[str, Tensor] = {}

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        chosen = np.sort(rng.integers(0, len(views), batch))
        added = np.sort(rng.integers(0, len(other_views), batch // 2))
        drawn = torch.from_numpy(np.concatenate([pictures[chosen], others[added]])).to(device).permute(0, 3, 1, 2) / 255
        drawn = _varied(rng, drawn).contiguous(memory_format=torch.channels_last)
        pixels = drawn[:batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            # Photos show a subject from either side; only the other towers must tell left from right.
            turned = torch.from_numpy(rng.random(len(drawn)) < 0.3)[:, None, None, None].to(device)
            features = F.normalize(net.encoders.subject(torch.where(turned, drawn.flip(-1), drawn))[1].float(), dim=-1)
            image = F.normalize(net.encoders.joint(pixels)[1].float(), dim=-1)
            said = net.judge(pixels)
        which = 16 * features @ F.normalize(net.centres, dim=-1).T
        own_subject = subjects[np.concatenate([chosen, len(views) + added])]
        text = F.normalize(net.encoders.words([caption(rng, views[i]) for i in chosen]), dim=-1)
        match, own = net.sharpness.exp().clamp(max=50) * image @ text.T, torch.arange(batch, device=device)
        joint_loss = (F.cross_entropy(match, own) + F.cross_entropy(match.T, own)) / 2
        judge_loss = sum(F.cross_entropy(said[q].float(), answers[q][chosen]) for q in said)
        right.update({q: (said[q].argmax(1) == answers[q][chosen]).float().mean() for q in said})
        right["subject"] = (which.argmax(1) == own_subject).float().mean()
        right["caption"] = (match.argmax(1) == own).float().mean()
        return F.cross_entropy(which, own_subject) + joint_loss + judge_loss

    run(
        net,
        optimizers(net, rate, is_hidden),
        loss_at,
        folder / "encoders.pt",
        steps=steps,
        decay=decay,
        batch=batch,
        average=0.98,
        save_every=100,
        show=lambda: {f"right_{name}": share.item() for name, share in right.items()},
        ledger=ledger,
    )


def _varied(rng: np.random.Generator, pixels: Tensor) -> Tensor:
    """Small shifts, noise and blur, so that generated pictures do not look foreign."""
    pad = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    y, x = rng.integers(0, 9, 2)
    pixels = pad[..., y : y + pixels.shape[-2], x : x + pixels.shape[-1]]
    if rng.random() < 0.5:
        pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1) * 0.6 + pixels * 0.4
    draw = torch.Generator(pixels.device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(pixels.shape, generator=draw, device=pixels.device)
    return (pixels + 0.03 * float(rng.random()) * noise).clamp(0, 1)
