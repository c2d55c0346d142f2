"""Painted pictures: PNG files with their origin in their own metadata, and batches of them as tensors."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from arbooth.data.files import whole_file
from arbooth.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

KEY = "arbooth"
# What is opened: Pillow has readers that start other programs (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 120_000_000


@contextmanager
def open_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A decoded picture, of a known format and bounded size whatever its name says.

    Raises:
        InputError: it is too large, or not a picture of these formats.
    """
    too_large = f"over the limit of {max_pixels} pixels: make it smaller"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > max_pixels:
                    raise InputError(f"{width}x{height} is {too_large}")
                opened.load()
                yield opened
    except Image.DecompressionBombError:
        raise InputError(f"its size is {too_large}") from None
    except UnidentifiedImageError:
        raise InputError("not a picture that can be read: export it again as JPEG or PNG") from None


def read_pictures(paths: Sequence[Path], again: str = "run `dvc repro`, which makes it") -> Tensor:
    """RGB pictures of one size as [B,3,H,W] in [0,1], float32.

    Args:
        again: where one that is missing or damaged comes from.

    Raises:
        InputError: there are none, one is damaged, or their sizes differ.
    """
    import torch

    if not paths:
        raise InputError(f"there are no pictures to read: {again}")
    arrays = []
    for path in paths:
        try:
            with open_picture(path) as image:
                arrays.append(np.asarray(image.convert("RGB")))
        except FileNotFoundError:
            raise InputError(f"{path} is not there: {again}") from None
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{path} can't be read ({error}): delete it, then {again}") from None
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"the pictures in {paths[0].parent} have different sizes: delete them, then {again}")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def png(pixels: np.ndarray, record: dict) -> bytes:
    """PNG of [H,W,3] bytes with a JSON record (prompt, seed, settings, base, adapter) as text chunk."""
    info, out = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text(KEY, json.dumps(record, sort_keys=True))
    Image.fromarray(pixels).save(out, format="png", pnginfo=info)
    return out.getvalue()


def write_picture(path: Path, pixels: np.ndarray, record: dict) -> None:
    """The same as a file."""
    with whole_file(path) as part:
        part.write_bytes(png(pixels, record))


def read_origin(path: Path) -> dict:
    """The record of a picture that `write_picture` wrote; empty for others."""
    with open_picture(path) as image:
        return json.loads(image.info.get(KEY, "{}"))
