"""Contact sheets: captioned rows of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from arbooth.data.files import whole_file


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


def thumbnail(path: Path, pictures: Sequence[Image.Image], side: int = 160) -> None:
    """The first four pictures side by side on a square of `side` pixels, as JPEG: a few kilobytes."""
    half = side // 2
    square = Image.new("RGB", (side, side), "white")
    for index, picture in enumerate(pictures[:4]):
        square.paste(_tile(picture, half), (index % 2 * half, index // 2 * half))
    with whole_file(path) as part:
        square.save(part, format="jpeg", quality=85)


def _tile(picture: Image.Image, side: int) -> Image.Image:
    factor = side / max(picture.size)
    size = [max(1, round(s * factor)) for s in picture.size]
    small = picture.convert("RGB").resize(size, Image.LANCZOS)
    tile = Image.new("RGB", (side, side), (245, 245, 245))
    tile.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile
