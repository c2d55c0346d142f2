"""Painted pictures: PNG files with their origin in their own metadata, and batches of them as tensors."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from arbooth.data.files import whole_file

KEY = "arbooth"


def read_pictures(paths: Sequence[Path]) -> Tensor:
    """RGB pictures of one size as [B,3,H,W] in [0,1], float32.

    Raises:
        FileNotFoundError: the list is empty.
    """
    if not paths:
        raise FileNotFoundError("there are no pictures to read")
    arrays = []
    for path in paths:
        with Image.open(path) as image:
            arrays.append(np.asarray(image.convert("RGB")))
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
    with Image.open(path) as image:
        return json.loads(image.info.get(KEY, "{}"))
