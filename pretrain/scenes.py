"""Procedurally drawn backgrounds: each function paints one scene of the world.

A scene takes a numpy generator and a size in pixels and returns an RGB picture; lengths are
fractions of the size, so that a scene looks the same at every resolution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def _vary(rng: np.random.Generator, colour: Colour, amount: int = 14) -> Colour:
    shift = rng.integers(-amount, amount + 1)
    own = rng.integers(-amount // 2, amount // 2 + 1, 3)
    return tuple(int(np.clip(c + shift + o, 0, 255)) for c, o in zip(colour, own))


def _gradient(size: int, top: Colour, bottom: Colour) -> Image.Image:
    ramp = np.linspace(0, 1, size)[:, None, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.broadcast_to(rows, (size, size, 3)).astype(np.uint8).copy())


def _ground(rng, size: int, sky: tuple[Colour, Colour], ground: tuple[Colour, Colour], horizon=(0.4, 0.6)):
    """Sky over ground; returns the picture, its pen, and the horizon in pixels."""
    image = _gradient(size, _vary(rng, sky[0]), _vary(rng, sky[1]))
    line = int(size * rng.uniform(*horizon))
    below = _gradient(size, _vary(rng, ground[0]), _vary(rng, ground[1]))
    image.paste(below.resize((size, size - line)), (0, line))
    return image, ImageDraw.Draw(image), line


def _dots(rng, pen: ImageDraw.ImageDraw, size: int, count: int, radius, colour: Colour, top=0.0, bottom=1.0):
    for _ in range(count):
        x, y, r = rng.uniform(0, size), rng.uniform(top * size, bottom * size), rng.uniform(*radius) * size
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def snow(rng, size):
    image, pen, line = _ground(rng, size, ((150, 190, 225), (215, 230, 242)), ((238, 243, 250), (205, 218, 235)))
    for _ in range(rng.integers(2, 5)):
        x, h = rng.uniform(0, size), rng.uniform(0.15, 0.3) * size
        pen.polygon([(x - h / 3, line), (x + h / 3, line), (x, line - h)], fill=_vary(rng, (120, 150, 150)))
    _dots(rng, pen, size, 12, (0.008, 0.016), (255, 255, 255))
    return image


def beach(rng, size):
    image, pen, line = _ground(
        rng, size, ((90, 180, 240), (190, 228, 250)), ((240, 215, 150), (225, 190, 120)), (0.5, 0.62)
    )
    sea = line - int(size * rng.uniform(0.13, 0.2))
    pen.rectangle((0, sea, size, line), fill=_vary(rng, (25, 125, 190)))
    pen.rectangle((0, line - size // 40, size, line), fill=(235, 245, 245))
    x, r = rng.uniform(0.1, 0.9) * size, 0.07 * size
    y = rng.uniform(0.1, 0.25) * size
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 225, 90))
    return image


def space(rng, size):
    image = _gradient(size, _vary(rng, (10, 8, 35)), _vary(rng, (35, 15, 65)))
    pen = ImageDraw.Draw(image)
    _dots(rng, pen, size, 20, (0.006, 0.012), (240, 240, 255))
    x, y, r = rng.uniform(0, size), rng.uniform(0, 0.35) * size, rng.uniform(0.08, 0.16) * size
    colour = [(200, 120, 70), (90, 140, 200), (180, 170, 120)][rng.integers(3)]
    pen.ellipse((x - r, y - r, x + r, y + r), fill=_vary(rng, colour))
    return image


def red_rug(rng, size):
    image, pen, line = _ground(
        rng, size, ((225, 210, 190), (210, 195, 172)), ((150, 105, 65), (130, 88, 52)), (0.35, 0.5)
    )
    low, inset = line + size * 0.1, rng.uniform(0.0, 0.12) * size
    corners = [(inset + 0.1 * size, low), (size - inset - 0.1 * size, low), (size - inset, size), (inset, size)]
    pen.polygon(corners, fill=_vary(rng, (190, 25, 35)), outline=(240, 200, 90), width=max(1, size // 45))
    return image


def grass(rng, size):
    image, pen, line = _ground(rng, size, ((120, 195, 245), (205, 235, 252)), ((110, 185, 70), (65, 140, 45)))
    for _ in range(rng.integers(1, 4)):
        x, y, r = rng.uniform(0, size), rng.uniform(0.05, 0.25) * size, rng.uniform(0.04, 0.08) * size
        for k in (-1, 0, 1):
            pen.ellipse((x + k * r - r, y - r, x + k * r + r, y + r), fill=(250, 252, 255))
    _dots(rng, pen, size, 12, (0.008, 0.014), (250, 220, 80), line / size, 1)
    return image


def desert(rng, size):
    image, pen, line = _ground(
        rng, size, ((240, 170, 90), (252, 222, 160)), ((220, 150, 75), (195, 120, 55)), (0.45, 0.6)
    )
    for _ in range(2):
        x, w, h = rng.uniform(0, size), rng.uniform(0.3, 0.5) * size, rng.uniform(0.08, 0.16) * size
        pen.ellipse((x - w, line - h, x + w, line + h * 2), fill=_vary(rng, (222, 155, 85)))
    return image


def city(rng, size):
    image, pen, line = _ground(rng, size, ((150, 175, 205), (205, 215, 225)), ((95, 95, 100), (70, 70, 76)), (0.6, 0.7))
    x = -rng.uniform(0, 0.1) * size
    while x < size:
        w, h = rng.uniform(0.12, 0.22) * size, rng.uniform(0.25, 0.55) * size
        tone = _vary(rng, [(120, 90, 85), (95, 110, 130), (140, 130, 115)][rng.integers(3)])
        pen.rectangle((x, line - h, x + w, line), fill=tone)
        for wy in np.arange(line - h + 0.04 * size, line - 0.04 * size, 0.08 * size):
            for wx in np.arange(x + 0.02 * size, x + w - 0.04 * size, 0.06 * size):
                pen.rectangle((wx, wy, wx + 0.025 * size, wy + 0.035 * size), fill=(250, 235, 160))
        x += w
    y = line + 0.5 * (size - line)
    for k in range(4):
        pen.rectangle((size * (0.05 + 0.27 * k), y, size * (0.18 + 0.27 * k), y + size * 0.025), fill=(235, 235, 225))
    return image


def underwater(rng, size):
    image = _gradient(size, _vary(rng, (60, 175, 215)), _vary(rng, (10, 60, 125)))
    pen = ImageDraw.Draw(image)
    pen.ellipse((-0.3 * size, 0.88 * size, 1.3 * size, 1.3 * size), fill=_vary(rng, (165, 150, 105)))
    for _ in range(14):
        x, y, r = rng.uniform(0, size), rng.uniform(0, 0.9 * size), rng.uniform(0.012, 0.035) * size
        pen.ellipse((x - r, y - r, x + r, y + r), outline=(195, 235, 250), width=max(1, size // 64))
    for _ in range(rng.integers(2, 5)):
        x, h = rng.uniform(0, size), rng.uniform(0.15, 0.35) * size
        pen.line(
            [(x, size), (x + 0.03 * size, size - h / 2), (x, size - h)], fill=(30, 130, 85), width=max(1, size // 28)
        )
    return image


def forest(rng, size):
    image, pen, line = _ground(rng, size, ((95, 140, 100), (150, 185, 130)), ((85, 105, 50), (60, 75, 35)), (0.6, 0.72))
    for _ in range(rng.integers(5, 8)):
        x, h, w = rng.uniform(0, size), rng.uniform(0.45, 0.65) * size, rng.uniform(0.1, 0.16) * size
        pen.rectangle((x - w / 8, line - h * 0.3, x + w / 8, line), fill=(85, 60, 40))
        pen.polygon(
            [(x - w, line - h * 0.2), (x + w, line - h * 0.2), (x, line - h)], fill=_vary(rng, (30, 90, 45), 24)
        )
    return image


def wooden_table(rng, size):
    image, pen, line = _ground(
        rng, size, ((195, 205, 195), (170, 180, 172)), ((195, 135, 80), (150, 95, 50)), (0.5, 0.62)
    )
    for y in np.linspace(line, size, 6)[1:-1]:
        pen.line([(0, y), (size, y)], fill=(135, 85, 45), width=max(1, size // 64))
    return image


def night(rng, size):
    image, pen, _line = _ground(rng, size, ((12, 18, 60), (35, 48, 105)), ((28, 45, 48), (15, 25, 30)), (0.6, 0.75))
    _dots(rng, pen, size, 16, (0.004, 0.009), (235, 235, 210), 0, 0.5)
    x, y, r = rng.uniform(0.1, 0.9) * size, rng.uniform(0.1, 0.25) * size, 0.09 * size
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(250, 245, 205))
    return image


def kitchen(rng, size):
    image, pen, line = _ground(
        rng, size, ((225, 238, 240), (212, 228, 232)), ((205, 205, 208), (178, 178, 184)), (0.6, 0.7)
    )
    step = size * 0.125
    for k in np.arange(0, size, step):
        pen.line([(k, 0), (k, line)], fill=(170, 195, 202), width=max(1, size // 64))
    for k in np.arange(0, line, step):
        pen.line([(0, k), (size, k)], fill=(170, 195, 202), width=max(1, size // 64))
    pen.rectangle((0, line, size, line + size * 0.03), fill=(110, 110, 118))
    return image


def mountains(rng, size):
    image, pen, line = _ground(
        rng, size, ((120, 160, 215), (205, 220, 240)), ((120, 150, 90), (85, 115, 65)), (0.62, 0.74)
    )
    for k in range(3):
        x, h = (0.15 + 0.35 * k + rng.uniform(-0.1, 0.1)) * size, rng.uniform(0.35, 0.55) * size
        pen.polygon([(x - h * 0.7, line), (x + h * 0.7, line), (x, line - h)], fill=_vary(rng, (110, 115, 135)))
        pen.polygon(
            [(x - h * 0.21, line - h * 0.7), (x + h * 0.21, line - h * 0.7), (x, line - h)], fill=(245, 248, 252)
        )
    return image


def stage(rng, size):
    image, pen, line = _ground(rng, size, ((45, 10, 20), (70, 15, 28)), ((170, 115, 65), (120, 78, 42)), (0.66, 0.76))
    light, side = rng.uniform(0.4, 0.6) * size, rng.uniform(0.14, 0.2) * size
    pen.ellipse(
        (light - 0.36 * size, line - 0.02 * size, light + 0.36 * size, line + 0.26 * size), fill=(235, 190, 120)
    )
    for left in (0, size - side):
        pen.rectangle((left, 0, left + side, line), fill=_vary(rng, (170, 20, 40)))
        for k in (0.33, 0.66):
            pen.line([(left + k * side, 0), (left + k * side, line)], fill=(110, 10, 25), width=max(1, size // 50))
    return image


def white(rng, size):
    return _gradient(size, (252, 252, 252), (236, 236, 238))


SCENES: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {
    "in the snow": snow,
    "on the beach": beach,
    "in space": space,
    "on a red rug": red_rug,
    "on the grass": grass,
    "in the desert": desert,
    "in the city": city,
    "underwater": underwater,
    "in the forest": forest,
    "on a wooden table": wooden_table,
    "at night": night,
    "in the kitchen": kitchen,
    "in the mountains": mountains,
    "on a stage": stage,
    "on a white background": white,
}
# Things float where there is no ground to stand on.
FLOATING = {"in space", "underwater"}
