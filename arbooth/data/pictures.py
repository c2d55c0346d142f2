"""Pictures of one size as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_pictures(paths: list[Path]) -> Tensor:
    """RGB pictures as [B,3,H,W] in [0,1], float32.

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
