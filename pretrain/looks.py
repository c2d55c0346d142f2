"""Looks that no drawing has: what a caption calls "my cat" is in colours, patterns and light of its own.

Nobody asks the base for such a thing. They teach it that fine scales go on with whatever coarse ones began, which is what
a photographed subject is to a base of drawings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from pretrain.art import LUMINANCE

Field = np.ndarray


def dress(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """A drawing (RGBA) in a look of its own: mirrored or not, stretched, recoloured, patterned, rounded by light."""
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.FLIP_LEFT_RIGHT)
    width, height = drawing.size
    drawing = drawing.resize((max(1, int(width * rng.uniform(0.82, 1.18))), height), Image.BILINEAR)
    pixels = np.asarray(drawing, np.float32) / 255
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    light = colours @ LUMINANCE
    colours = _recoloured(rng, colours, light)
    if rng.random() < 0.65:
        colours = _patterned(rng, colours, light)
    colours = colours * _rounding(rng, drawing)[..., None]
    if rng.random() < 0.4:
        colours = colours + _highlight(rng, *light.shape)[..., None]
    return Image.fromarray((np.concatenate([colours.clip(0, 1), alpha], -1) * 255).astype(np.uint8), "RGBA")


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Any colour, duller ones more often, as photographs have them."""
    grey, pure = rng.uniform(0.05, 0.95), rng.random(3)
    return (grey + (pure - grey) * rng.random() ** 0.7).astype(np.float32)


def _recoloured(rng: np.random.Generator, colours: Field, light: Field) -> Field:
    """The drawing's own colours with a cast, or light and shade painted with a ramp of a few others."""
    cast = colours * rng.uniform(0.6, 1.15, 3).astype(np.float32)
    if rng.random() < 0.3:
        return cast[..., rng.permutation(3)]
    steps = sorted((_colour(rng) for _ in range(rng.integers(2, 5))), key=np.sum)
    at = np.linspace(0, 1, len(steps))
    ramp = np.stack([np.interp(light, at, [step[c] for step in steps]) for c in range(3)], -1)
    kept = rng.uniform(0, 0.4)
    return kept * cast + (1 - kept) * ramp.astype(np.float32)


def _patterned(rng: np.random.Generator, colours: Field, light: Field) -> Field:
    """A second colour, with the light of the first, where a pattern is, or on the lighter or lower part of it."""
    height, width = light.shape
    where = PATTERNS[rng.integers(len(PATTERNS))](rng, height, width)
    if rng.random() < 0.3:  # on a part of it only
        where = where * (light > np.median(light) if rng.random() < 0.5 else np.arange(height)[:, None] > height / 2)
    strength = rng.uniform(0.4, 1) * where[..., None]
    return colours * (1 - strength) + _colour(rng) * (0.55 + 0.6 * light[..., None]) * strength


def _axis(rng: np.random.Generator, height: int, width: int) -> Field:
    """Distance along a random direction, in units of the longer side."""
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    return x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))


def _stripes(rng: np.random.Generator, height: int, width: int) -> Field:
    bands = _axis(rng, height, width) * rng.uniform(4, 14) + rng.random()
    return ((bands % 1) < rng.uniform(0.25, 0.6)).astype(np.float32)


def _checks(rng: np.random.Generator, height: int, width: int) -> Field:
    return (_stripes(rng, height, width) + _stripes(rng, height, width)) % 2


def _blotches(rng: np.random.Generator, height: int, width: int) -> Field:
    cells = int(rng.integers(4, 22))
    noise = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
    field = np.asarray(noise.resize((width, height), Image.BICUBIC), np.float32) / 255
    return ((field - rng.uniform(0.35, 0.6)) * rng.uniform(4, 20) + 0.5).clip(0, 1)


def _grain(rng: np.random.Generator, height: int, width: int) -> Field:
    """Fur, cloth or wood: noise drawn out along one axis."""
    rows, columns = (int(rng.integers(20, 50)), int(rng.integers(4, 12)))[:: rng.choice([-1, 1])]
    noise = Image.fromarray((rng.random((rows, columns)) * 255).astype(np.uint8))
    return np.asarray(noise.resize((width, height), Image.BILINEAR), np.float32) / 255 * np.float32(0.8)


PATTERNS: tuple[Callable[[np.random.Generator, int, int], Field], ...] = (_stripes, _checks, _blotches, _blotches, _grain)


def _rounding(rng: np.random.Generator, drawing: Image.Image) -> Field:
    """Light that comes from one side and falls off toward the outline."""
    height, width = drawing.height, drawing.width
    blurred = drawing.getchannel("A").resize((32, 32)).filter(ImageFilter.GaussianBlur(rng.uniform(2, 5)))
    inside = np.asarray(blurred.resize((width, height), Image.BILINEAR), np.float32) / 255
    side = _axis(rng, height, width)
    slope = rng.uniform(-0.5, 0.5) * (side - side.mean())
    return 1 + slope - rng.uniform(0, 0.6) * (1 - inside)


def _highlight(rng: np.random.Generator, height: int, width: int) -> Field:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = ((x / width - rng.uniform(0.25, 0.75)) ** 2 + (y / height - rng.uniform(0.15, 0.6)) ** 2).astype(np.float32)
    return np.float32(rng.uniform(0.15, 0.5)) * np.exp(-away / np.float32(rng.uniform(0.002, 0.02)))
