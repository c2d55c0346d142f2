"""Train the embedded tokenizer: reconstruct pictures through residual binary quantisation."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from arbooth.model.autoencoder import Autoencoder, AutoencoderConfig, to_uint8
from arbooth.model.quantizer import Quantizer
from arbooth.model.schedule import Schedule
from pretrain import checkpoint


def to_pixels(pictures: np.ndarray) -> Tensor:
    """uint8 [B,H,W,3] -> [-1,1] float32 [B,3,H,W]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def quantize(quantizer: Quantizer, features: Tensor) -> tuple[Tensor, Tensor]:
    """Codes with straight-through gradients, and the usage loss that keeps bits balanced."""
    canvas, usage = torch.zeros_like(features), 0.0
    for size in quantizer.maps:
        residual = features - canvas.detach()
        if size != quantizer.maps[-1]:
            residual = F.interpolate(residual, size=size, mode="area")
        chance = torch.sigmoid(residual * 4 * math.sqrt(quantizer.bits)).mean((0, 2, 3))
        usage = usage + (chance - 0.5).pow(2).mean()
        canvas = quantizer.add(canvas, quantizer.code(residual > 0))
    return features + (canvas - features).detach(), usage / len(quantizer.maps)


def reconstruction_loss(made: Tensor, real: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences to the right and below (keeps edges)."""
    edges = sum((made.diff(dim=axis) - real.diff(dim=axis)).abs().mean() for axis in (2, 3))
    return (made - real).abs().mean() + 0.5 * (made - real).pow(2).mean() + 0.5 * edges


def train(
    pictures: np.ndarray,
    config: AutoencoderConfig,
    maps: list[list[int]],
    folder: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> Autoencoder:
    """Train or go on training; the resume file and sample sheets lie in `folder`."""
    torch.manual_seed(seed)
    net, quantizer = Autoencoder(config), Quantizer(Schedule.custom(maps), config.bits)
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    first, state = 0, checkpoint.load(folder / "tokenizer.pt")
    if state:
        net.load_state_dict(state["net"]), optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
    held = to_pixels(np.array(pictures[:64]))
    started = time.time()
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        real = to_pixels(pictures[np.sort(rng.integers(64, len(pictures), batch))])
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * math.cos(math.pi / 2 * step / steps) ** 2)
        features = net.encode(real.contiguous(memory_format=torch.channels_last))
        codes, usage = quantize(quantizer, features)
        commit = (features - codes.detach()).pow(2).mean() * quantizer.bits
        loss = reconstruction_loss(net.decoder(codes), real) + 0.05 * commit + 0.2 * usage
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, value in net.state_dict().items():
                average[name].lerp_(value, 1 - min(0.998, (step + 1) / (step + 10)))
        if (step + 1) % 200 == 0 or step + 1 == steps:
            checkpoint.save(
                folder / "tokenizer.pt",
                net=net.state_dict(),
                optimizer=optimizer.state_dict(),
                average=average,
                step=step + 1,
            )
            current = {k: v.clone() for k, v in net.state_dict().items()}
            net.load_state_dict(average)
            score = evaluate(net, quantizer, held, folder / "tokenizer.png")
            net.load_state_dict(current)
            speed = (step + 1 - first) * batch / (time.time() - started)
            print(
                f"step {step + 1}/{steps} loss {loss.item():.4f} commit {commit.item():.3f} usage {float(usage):.4f} psnr {score:.2f} dB {speed:.0f} img/s",
                flush=True,
            )
    net.load_state_dict(average)
    return net


@torch.no_grad()
def evaluate(net: Autoencoder, quantizer: Quantizer, real: Tensor, sheet: Path | None = None) -> float:
    """Mean PSNR in dB through the quantiser; writes originals over reconstructions."""
    codes = quantizer.inputs_from_bits(quantizer.encode(net.encode(real)).bits)[1]
    made = net.decode(codes)
    if sheet is not None:
        rows = torch.cat([real[:12], made[:12]])
        tiles = to_uint8(rows).numpy().reshape(2, 12, *rows.shape[2:], 3)
        Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in tiles])).save(sheet)
    error = ((made - real) / 2).pow(2).mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def refine(
    net: Autoencoder,
    quantizer: Quantizer,
    pictures: np.ndarray,
    folder: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> None:
    """Go on with the decoder alone: the codes stay as they are, so the transformer does too."""
    decoder = net.decoder.requires_grad_(True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = {k: v.detach().clone() for k, v in decoder.state_dict().items()}
    first, state = 0, checkpoint.load(folder / "decoder.pt")
    if state:
        decoder.load_state_dict(state["net"]), optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
    held = to_pixels(np.array(pictures[:64]))
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 1, step])
        real = to_pixels(pictures[np.sort(rng.integers(64, len(pictures), batch))])
        with torch.no_grad():
            codes = quantizer.inputs_from_bits(quantizer.encode(net.encode(real)).bits)[1]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.02 + 0.98 * math.cos(math.pi / 2 * step / steps) ** 2)
        loss = reconstruction_loss(decoder(codes), real)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, value in decoder.state_dict().items():
                average[name].lerp_(value, 1 - min(0.995, (step + 1) / (step + 10)))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            checkpoint.save(
                folder / "decoder.pt",
                net=decoder.state_dict(),
                optimizer=optimizer.state_dict(),
                average=average,
                step=step + 1,
            )
            current = {k: v.clone() for k, v in decoder.state_dict().items()}
            decoder.load_state_dict(average)
            score = evaluate(net, quantizer, held, folder / "decoder.png")
            decoder.load_state_dict(current)
            print(f"step {step + 1}/{steps} loss {loss.item():.4f} psnr {score:.2f} dB", flush=True)
