"""Generated pictures with their origin in the PNG's own metadata, and sheets of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from arbooth.data.files import whole_file

KEY = "arbooth"


def write_picture(path: Path, pixels: np.ndarray, record: dict) -> None:
    """PNG of [H,W,3] bytes with a JSON record (prompt, seed, settings, base, adapter) as text chunk."""
    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, json.dumps(record, sort_keys=True))
    with whole_file(path) as part:
        Image.fromarray(pixels).save(part, format="png", pnginfo=info)


def read_record(path: Path) -> dict:
    """The record of a picture that `write_picture` wrote; empty for others."""
    with Image.open(path) as image:
        return json.loads(image.info.get(KEY, "{}"))


def contact_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[Image.Image]]], tile: int = 160, columns: int = 8
) -> None:
    """One captioned row of pictures after another; long rows are broken.

    Args:
        rows: caption and pictures.
        tile: side of a picture on the sheet, in pixels.
    """
    lines = [
        (caption if start == 0 else "", pictures[start : start + columns])
        for caption, pictures in rows
        for start in range(0, max(1, len(pictures)), columns)
    ]
    band, gap = 24, 6
    wide = max((len(pictures) for _, pictures in lines), default=1)
    width = max(wide * (tile + gap) + gap, 420)
    height = sum(tile + gap + (band if caption else 0) for caption, _ in lines) + gap
    sheet = Image.new("RGB", (width, height), "white")
    pen, font, y = ImageDraw.Draw(sheet), ImageFont.load_default(14), gap
    for caption, pictures in lines:
        if caption:
            pen.text((gap, y + 3), caption, fill=(30, 30, 30), font=font)
            y += band
        for column, picture in enumerate(pictures):
            sheet.paste(_tile(picture, tile), (gap + column * (tile + gap), y))
        y += tile + gap
    with whole_file(path) as part:
        sheet.save(part, format="png")


def _tile(picture: Image.Image, side: int) -> Image.Image:
    factor = side / max(picture.size)
    size = [max(1, round(s * factor)) for s in picture.size]
    small = picture.convert("RGB").resize(size, Image.LANCZOS)
    tile = Image.new("RGB", (side, side), (245, 245, 245))
    tile.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile
