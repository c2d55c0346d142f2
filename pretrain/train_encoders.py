"""Train the embedded metric encoders: one knows drawings whatever the scene, one reads captions."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arbooth.metrics.embedded import EmbeddedEncoders
from pretrain import checkpoint
from pretrain.words import word_list
from pretrain.world import View, caption


def identity(view: View) -> str:
    """Pictures show the same subject when drawing and colour agree."""
    return f"{view.drawing.name} {view.colour}"


def train(
    pictures: np.ndarray, views: list[View], folder: Path, *, steps: int, batch: int, rate: float, seed: int
) -> EmbeddedEncoders:
    """Train or go on training both towers; the resume file lies in `folder`."""
    torch.manual_seed(seed)
    net = EmbeddedEncoders(word_list())
    labels = {name: i for i, name in enumerate(sorted({identity(v) for v in views}))}
    target = torch.tensor([labels[identity(v)] for v in views])
    centres = nn.Parameter(torch.randn(len(labels), 128) * 0.1)
    sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
    trained = [*net.parameters(), centres, sharpness]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.05)
    first, state = 0, checkpoint.load(folder / "encoders.pt")
    if state:
        net.load_state_dict(state["net"]), optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        with torch.no_grad():
            centres.copy_(state["centres"]), sharpness.copy_(state["sharpness"])
    started = time.time()
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        chosen = np.sort(rng.integers(0, len(views), batch))
        pixels = _varied(rng, torch.from_numpy(np.array(pictures[chosen])).permute(0, 3, 1, 2).float() / 255)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * math.cos(math.pi / 2 * step / steps) ** 2)
        subject = F.normalize(net.subject(pixels)[1], dim=-1)
        which = 16 * subject @ F.normalize(centres, dim=-1).T
        subject_loss = F.cross_entropy(which, target[chosen])
        image = F.normalize(net.joint(pixels)[1], dim=-1)
        text = F.normalize(net.words([caption(rng, views[i]) for i in chosen]), dim=-1)
        match = sharpness.exp().clamp(max=50) * image @ text.T
        own = torch.arange(batch)
        joint_loss = (F.cross_entropy(match, own) + F.cross_entropy(match.T, own)) / 2
        optimizer.zero_grad(set_to_none=True)
        (subject_loss + joint_loss).backward()
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            checkpoint.save(
                folder / "encoders.pt",
                net=net.state_dict(),
                optimizer=optimizer.state_dict(),
                step=step + 1,
                centres=centres.detach(),
                sharpness=sharpness.detach(),
            )
            right = (which.argmax(1) == target[chosen]).float().mean()
            found = (match.argmax(1) == own).float().mean()
            speed = (step + 1 - first) * batch / (time.time() - started)
            print(
                f"step {step + 1}/{steps} subject {subject_loss:.3f} right {right:.2f} joint {joint_loss:.3f} found {found:.2f} {speed:.0f} img/s",
                flush=True,
            )
    return net.eval()


def _varied(rng: np.random.Generator, pixels: Tensor) -> Tensor:
    """Small shifts, noise and blur, so that generated pictures do not look foreign."""
    pad = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    y, x = rng.integers(0, 9, 2)
    pixels = pad[..., y : y + pixels.shape[-2], x : x + pixels.shape[-1]]
    if rng.random() < 0.5:
        pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1) * 0.6 + pixels * 0.4
    return (pixels + 0.03 * float(rng.random()) * torch.randn(pixels.shape)).clamp(0, 1)
