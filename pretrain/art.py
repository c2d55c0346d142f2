"""Drawings of the world: which open-licensed picture shows what, rasterised to RGBA arrays.

Sources (see NOTICE): Noto Emoji (Apache-2.0), Twemoji (CC-BY-4.0), Fluent Emoji 3D (MIT), all
installed from the npm registry into one folder.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

# How a caption may name the style of each set; every training class is drawn in all three.
STYLES = {"noto": "cartoon", "twemoji": "flat", "fluent": "3d"}
# Class noun -> the emoji that show it.
CLASSES: dict[str, list[str]] = {
    "cat": ["cat"],
    "dog": ["dog"],
    "teddy bear": ["teddy-bear"],
    "teapot": ["teapot"],
    "alarm clock": ["alarm-clock"],
    "car": ["automobile"],
    "owl": ["owl"],
    "duck": ["duck"],
    "rabbit": ["rabbit"],
    "robot": ["robot"],
    "snowman": ["snowman-without-snow"],
    "turtle": ["turtle"],
    "backpack": ["backpack"],
    "boot": ["womans-boot"],
    "guitar": ["guitar"],
    "vase": ["amphora"],
    "penguin": ["penguin"],
    "elephant": ["elephant"],
    "horse": ["horse"],
    "cow": ["cow"],
    "pig": ["pig"],
    "rooster": ["rooster"],
    "parrot": ["parrot"],
    "flamingo": ["flamingo"],
    "whale": ["whale"],
    "octopus": ["octopus"],
    "crab": ["crab"],
    "butterfly": ["butterfly"],
    "giraffe": ["giraffe"],
    "monkey": ["monkey"],
    "bicycle": ["bicycle"],
    "bus": ["bus"],
    "train": ["locomotive"],
    "helicopter": ["helicopter"],
    "rocket": ["rocket"],
    "sailboat": ["sailboat"],
    "chair": ["chair"],
    "umbrella": ["umbrella"],
    "shoe": ["running-shoe"],
    "handbag": ["handbag"],
    "camera": ["camera"],
    "cactus": ["cactus"],
    "mushroom": ["mushroom"],
    "pineapple": ["pineapple"],
    "cake": ["birthday-cake"],
}
# Never shown in any training: the subjects of demos and benchmarks.
HELD_OUT: dict[str, list[str]] = {
    "cat": ["black-cat"],
    "dog": ["poodle", "guide-dog"],
    "car": ["racing-car", "taxi", "sport-utility-vehicle"],
    "boot": ["hiking-boot"],
    "snowman": ["snowman"],
    "whale": ["spouting-whale"],
    "bus": ["trolleybus"],
    "shoe": ["mans-shoe", "high-heeled-shoe"],
    "handbag": ["clutch-bag"],
    "guitar": ["banjo"],
    "cake": ["shortcake"],
    "cow": ["ox", "water-buffalo"],
    "monkey": ["orangutan"],
    "camera": ["camera-with-flash"],
    "train": ["tram-car"],
    "horse": ["zebra"],
}
ACCESSORIES: dict[str, list[str]] = {
    "a crown": ["crown"],
    "a top hat": ["top-hat"],
    "sunglasses": ["sunglasses"],
    "a bow": ["ribbon"],
    "a cap": ["billed-cap"],
}
# Other drawings, without a place in captions: what else the encoders learn to tell apart.
CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
# How bright red, green and blue look.
LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)


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

    def drawings(self, table: dict[str, list[str]]) -> dict[str, list[Drawing]]:
        """Every drawing of a table, by noun."""
        return {
            noun: [self._drawing(noun, own, where) for own in names for where in STYLES]
            for noun, names in table.items()
        }

    def others(self) -> dict[str, list[Drawing]]:
        """Drawings of things that all three sets have and the world has not, by emoji."""
        listed = json.loads((self.modules / "@iconify-json/noto/metadata.json").read_text())["categories"]
        known = {name for table in (CLASSES, HELD_OUT, ACCESSORIES) for names in table.values() for name in names}
        names = sorted({name for category in CATEGORIES for name in listed[category]} - known)
        names = [name for name in names if not name.endswith(("-oclock", "-thirty"))]  # clocks that tell other times
        return self.drawings({name: [name] for name in names if all(self._has(where, name) for where in STYLES)})

    def _has(self, where: str, name: str) -> bool:
        if where == "fluent":
            return self._fluent_path(name) is not None
        return any(name in self._set(where)[kind] for kind in ("icons", "aliases"))

    def _drawing(self, noun: str, name: str, where: str) -> Drawing:
        image = self._fluent(name) if where == "fluent" else self._svg(where, name)
        box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
        image = image.crop(box)
        image.thumbnail((self.pixels, self.pixels), Image.LANCZOS)
        return Drawing(f"{where}/{name}", noun, image)

    def _fluent(self, name: str) -> Image.Image:
        return Image.open(self._fluent_path(name)).convert("RGBA")

    def _fluent_path(self, name: str) -> Path | None:
        """Its files are named by code points; Noto's table has them for every name."""
        folder, code = self.modules / "@lobehub/fluent-emoji-3d/assets", self._codes.get(name)
        found = [path for path in (folder / f"{code}.webp", folder / f"{code}-fe0f.webp") if path.exists()]
        return found[0] if found else None

    @cached_property
    def _codes(self) -> dict[str, str]:
        table = json.loads((self.modules / "@iconify-json/noto/chars.json").read_text())
        return {name: code for code, name in table.items()}

    def _set(self, where: str) -> dict:
        if where not in self._icons:
            self._icons[where] = json.loads((self.modules / "@iconify-json" / where / "icons.json").read_text())
        return self._icons[where]

    def _svg(self, where: str, name: str) -> Image.Image:
        import resvg_py

        icons = self._set(where)
        name = icons["aliases"].get(name, {}).get("parent", name) if name not in icons["icons"] else name
        icon = icons["icons"][name]
        width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=self.pixels * 2))
        return Image.open(io.BytesIO(png)).convert("RGBA")


def recolour(image: Image.Image, rgb: tuple[int, int, int]) -> Image.Image:
    """Paint a drawing in one hue, keeping its light and shade."""
    pixels = np.asarray(image, dtype=np.float32)
    light = (pixels[..., :3] @ LUMINANCE / 255)[..., None]
    light = 0.15 + 0.75 * light
    hue = np.array(rgb, dtype=np.float32)
    dark, bright = hue * (2 * light), hue + (255 - hue) * (2 * light - 1)
    painted = np.where(light < 0.5, dark, bright)
    return Image.fromarray(np.concatenate([painted, pixels[..., 3:]], -1).clip(0, 255).astype(np.uint8), "RGBA")
