"""A subject cut out of its photo, from a central rectangle by GrabCut (Rother et al., 2004) or by a mask that somebody drew."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from arbooth.errors import InputError

LIGHT = (244, 244, 244)
MARGIN = 0.12  # of the subject's longer side, around it
_SIDE, _EDGE, _ROUNDS = 384, 0.04, 5  # pixels that GrabCut sees, the frame that is no subject, its iterations
_THIN = 3  # of those pixels; what is thinner (a fence's wire, a cord, a line on the wall) only hangs on to the subject
_SMALL = 128  # pixels of a photo whose own legs may be as thin
_LEAST, _MOST = 0.01, 0.95  # of the photo; else nothing was told apart


def cut_out(
    image: Image.Image, ratio: float, mask: Image.Image | None = None, ground: Image.Image | None = None
) -> Image.Image:
    """The subject in the middle of a ground, with a soft edge.

    Args:
        image: RGB.
        ratio: width over height of what is returned.
        mask: white where the subject is, of the photo's size; else it is looked for.
        ground: a picture, RGB; else it is light.

    Raises:
        InputError: nothing, or everything, is the subject.
    """
    part = _thumb(mask.convert("L")) > 127 if mask is not None else _found(_thumb(image))
    if not _LEAST < part.mean() < _MOST:
        raise InputError("no subject stands out from its background")
    small = Image.fromarray(part.astype(np.uint8) * 255)
    left, top, right, bottom = _scaled(small.getbbox() or (0, 0, 1, 1), image.size, small.size)
    alpha = small.resize(image.size, Image.Resampling.BILINEAR)
    alpha = alpha.filter(ImageFilter.GaussianBlur(max(image.size) / _SIDE))
    height = max(bottom - top, (right - left) / ratio) * (1 + 2 * MARGIN)
    size = (max(1, round(height * ratio)), max(1, round(height)))
    canvas = Image.new("RGB", size, LIGHT) if ground is None else ground.resize(size, Image.Resampling.BICUBIC)
    canvas.paste(image, (round(size[0] / 2 - (left + right) / 2), round(size[1] / 2 - (top + bottom) / 2)), alpha)
    return canvas


def _thumb(image: Image.Image) -> np.ndarray:
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.array(small)


def _found(pixels: np.ndarray) -> np.ndarray:
    """Where GrabCut sees the subject, [H,W] of bool; the same for the same pixels."""
    import cv2

    height, width = pixels.shape[:2]
    inner = (int(width * _EDGE), int(height * _EDGE), int(width * (1 - 2 * _EDGE)), int(height * (1 - 2 * _EDGE)))
    labels = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)  # it begins with k-means
    try:
        cv2.grabCut(np.ascontiguousarray(pixels[..., ::-1]), labels, inner, np.zeros((1, 65)), np.zeros((1, 65)),
                    _ROUNDS, cv2.GC_INIT_WITH_RECT)  # fmt: skip
    except cv2.error:  # one colour alone
        return np.zeros((height, width), bool)
    found: np.ndarray = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8) * 255
    if max(height, width) >= _SMALL:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_THIN, _THIN))
        found = cv2.morphologyEx(found, cv2.MORPH_OPEN, disk)
    return _largest(found)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The part that has the most of the middle, [H,W] of bool: a sky can be larger than what stands before it."""
    import cv2

    count, labels = cv2.connectedComponents((mask > 127).astype(np.uint8))
    height, width = mask.shape
    y, x = np.mgrid[0:height, 0:width]
    middle = np.exp(-(((x - width / 2) / (width / 4)) ** 2 + ((y - height / 2) / (height / 4)) ** 2) / 2)
    shares = np.bincount(labels.ravel(), weights=middle.ravel(), minlength=count)
    return labels == 1 + int(shares[1:].argmax()) if count > 1 else np.zeros(mask.shape, bool)


def _scaled(box: tuple[int, int, int, int], size: tuple[int, int], of: tuple[int, int]) -> tuple[float, ...]:
    return tuple(edge * size[k % 2] / of[k % 2] for k, edge in enumerate(box))
