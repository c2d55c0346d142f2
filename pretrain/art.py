"""Drawings of the world: which open-licensed picture shows what, rasterised to RGBA arrays.

Sources (see NOTICE): Noto Emoji (Apache-2.0), Twemoji (CC-BY-4.0), Fluent Emoji 3D (MIT), all
installed from the npm registry into one folder.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SETS = ("noto", "twemoji", "fluent")
# Class noun -> drawings: (name in Noto and Twemoji, code points in Fluent 3D).
CLASSES: dict[str, list[tuple[str, str]]] = {
    "cat": [("cat", "1f408"), ("black-cat", "1f408-200d-2b1b")],
    "dog": [("dog", "1f415"), ("guide-dog", "1f9ae"), ("service-dog", "1f415-200d-1f9ba")],
    "teddy bear": [("teddy-bear", "1f9f8")],
    "teapot": [("teapot", "1fad6")],
    "alarm clock": [("alarm-clock", "23f0")],
    "car": [("automobile", "1f697"), ("taxi", "1f695"), ("sport-utility-vehicle", "1f699")],
    "owl": [("owl", "1f989")],
    "duck": [("duck", "1f986")],
    "rabbit": [("rabbit", "1f407")],
    "robot": [("robot", "1f916")],
    "snowman": [("snowman-without-snow", "26c4")],
    "turtle": [("turtle", "1f422")],
    "backpack": [("backpack", "1f392")],
    "boot": [("womans-boot", "1f462"), ("hiking-boot", "1f97e")],
    "guitar": [("guitar", "1f3b8")],
    "vase": [("amphora", "1f3fa")],
    "penguin": [("penguin", "1f427")],
    "elephant": [("elephant", "1f418")],
}
# Never shown in any training: the subjects of demos and benchmarks.
HELD_OUT: dict[str, list[tuple[str, str]]] = {
    "dog": [("poodle", "1f429")],
    "car": [("racing-car", "1f3ce-fe0f")],
}
ACCESSORIES: dict[str, list[tuple[str, str]]] = {
    "a crown": [("crown", "1f451")],
    "a top hat": [("top-hat", "1f3a9")],
    "sunglasses": [("sunglasses", "1f576-fe0f")],
    "a bow": [("ribbon", "1f380")],
}


@dataclass(frozen=True)
class Drawing:
    """One picture of one thing: RGBA bytes [S,S,4], cropped to what it shows."""

    name: str
    noun: str
    rgba: Image.Image


class Art:
    """Reads drawings from an npm folder that holds the three packages."""

    def __init__(self, modules: Path, pixels: int = 256) -> None:
        self.modules, self.pixels = Path(modules), pixels
        if not self.modules.is_dir():
            raise FileNotFoundError(f"no art at {modules}: run `npm install` in pretrain/")
        self._icons: dict[str, dict] = {}

    def drawings(self, table: dict[str, list[tuple[str, str]]]) -> dict[str, list[Drawing]]:
        """Every drawing of a table, by noun."""
        return {
            noun: [self._drawing(noun, own, where) for own in names for where in SETS] for noun, names in table.items()
        }

    def _drawing(self, noun: str, name: tuple[str, str], where: str) -> Drawing:
        image = self._fluent(name[1]) if where == "fluent" else self._svg(where, name[0])
        box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
        image = image.crop(box)
        image.thumbnail((self.pixels, self.pixels), Image.LANCZOS)
        return Drawing(f"{where}/{name[0]}", noun, image)

    def _fluent(self, code: str) -> Image.Image:
        path = self.modules / "@lobehub/fluent-emoji-3d/assets" / f"{code}.webp"
        return Image.open(path).convert("RGBA")

    def _svg(self, where: str, name: str) -> Image.Image:
        import resvg_py

        if where not in self._icons:
            self._icons[where] = json.loads((self.modules / "@iconify-json" / where / "icons.json").read_text())
        icons = self._icons[where]
        name = icons["aliases"].get(name, {}).get("parent", name) if name not in icons["icons"] else name
        icon = icons["icons"][name]
        width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=self.pixels * 2))
        return Image.open(io.BytesIO(png)).convert("RGBA")


def recolour(image: Image.Image, rgb: tuple[int, int, int]) -> Image.Image:
    """Paint a drawing in one hue, keeping its light and shade."""
    pixels = np.asarray(image, dtype=np.float32)
    light = (pixels[..., :3] @ np.array([0.3, 0.59, 0.11], dtype=np.float32) / 255)[..., None]
    light = 0.15 + 0.75 * light
    hue = np.array(rgb, dtype=np.float32)
    dark, bright = hue * (2 * light), hue + (255 - hue) * (2 * light - 1)
    painted = np.where(light < 0.5, dark, bright)
    return Image.fromarray(np.concatenate([painted, pixels[..., 3:]], -1).clip(0, 255).astype(np.uint8), "RGBA")
