"""Train the embedded tokenizer: reconstruct pictures through residual binary quantisation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from arbooth.method.muon import has_bfloat16
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.quantizer import Quantizer
from arbooth.settings import torch_device
from pretrain.ledger import Ledger
from pretrain.optimize import optimizers, run


def to_pixels(pictures: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B,H,W,3] -> [-1,1] float32 [B,3,H,W]."""
    return torch.from_numpy(np.asarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


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


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Every convolution but the two that touch pixels."""
    return parameter.ndim == 4 and not name.startswith(("encoder.conv_in", "decoder.conv_out"))


def train(
    pictures: np.ndarray,
    photos: np.ndarray,
    net: Autoencoder,
    quantizer: Quantizer,
    perception: nn.Module,
    folder: Path,
    *,
    steps: int,
    decay: int,
    batch: int,
    rate: float,
    photo_share: float,
    seed: int,
    ledger: Ledger | None = None,
) -> None:
    """Train or go on training; the resume file and a sample sheet lie in `folder`.

    Args:
        pictures: of the world, uint8 [N,S,S,3]; the first 64 are held back to measure.
        photos: photographs of anything, likewise, so that a user's own survive.
        perception: a distance of two batches of pictures, as eyes see it.
        photo_share: how much of a batch they are.
    """
    device = torch_device()
    net.to(device, memory_format=torch.channels_last)
    held, real = (to_pixels(np.array(bank[:64])).to(device) for bank in (pictures, photos))
    from_photos = round(batch * photo_share)
    perception.to(device, memory_format=torch.channels_last)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        drawn = pictures[np.sort(rng.integers(64, len(pictures), batch - from_photos))]
        pixels = to_pixels(np.concatenate([drawn, photos[np.sort(rng.integers(64, len(photos), from_photos))]]))
        pixels = pixels.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            features = net.encode(pixels).float()
            codes, usage = quantize(quantizer, features)
            made = net.decoder(codes).float()
            seen = perception(made, pixels)
        commit = (features - codes.detach()).pow(2).mean() * quantizer.bits
        return reconstruction_loss(made, pixels) + 0.5 * seen + 0.05 * commit + 0.2 * usage

    def show() -> dict[str, float]:
        return {
            "psnr_world": evaluate(net, quantizer, held, folder / "tokenizer.png"),
            "psnr_photos": evaluate(net, quantizer, real, folder / "photos.png"),
        }

    run(
        net,
        optimizers(net, rate, is_hidden),
        loss_at,
        folder / "tokenizer.pt",
        steps=steps,
        decay=decay,
        batch=batch,
        show=show,
        ledger=ledger,
    )


@torch.no_grad()
def evaluate(net: Autoencoder, quantizer: Quantizer, real: Tensor, sheet: Path | None = None) -> float:
    """Mean PSNR in dB through the quantiser; writes originals over reconstructions."""
    codes = quantizer.inputs_from_bits(quantizer.encode(net.encode(real)).bits)[1]
    made = net.decode(codes)
    if sheet is not None:
        rows = torch.cat([real[:12], made[:12]])
        tiles = to_uint8(rows).cpu().numpy().reshape(2, 12, *rows.shape[2:], 3)
        Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in tiles])).save(sheet)
    error = ((made - real) / 2).pow(2).mean((1, 2, 3))
    return float((-10 * error.log10()).mean())
