"""Users' photos: checked all together before anything runs, then oriented, cropped and resized."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from arbooth.errors import InputError

READABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
HEIC = (".heic", ".heif", ".avif")
MOST = 20
Crop = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photo:
    """One checked photo: upright RGB pixels and the digest of its decoded content."""

    path: Path
    image: Image.Image
    digest: str


@dataclass(frozen=True)
class Photos:
    photos: list[Photo]
    warnings: list[str]


def read_photos(folder: Path, smallest: int, max_pixels: int) -> Photos:
    """Read and check every photo of a folder.

    Args:
        folder: 1 to 20 pictures; other files and hidden ones are ignored.
        smallest: shorter side in pixels below which a photo is refused.
        max_pixels: pictures with more pixels are refused before they are decoded.

    Raises:
        InputError: everything that is wrong with the folder, in one message.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of photos")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    files = [p for p in files if p.suffix.lower() in (*READABLE, *HEIC)]
    if not files:
        raise InputError(f"{folder} holds no photos: put 1 to {MOST} of {', '.join(READABLE)} there")
    if len(files) > MOST:
        raise InputError(f"{folder} holds {len(files)} photos: keep the best {MOST} or fewer")
    photos, problems, notes = [], [], []
    seen: dict[str, str] = {}
    for path in files:
        try:
            photo = _read(path, smallest, max_pixels)
        except InputError as error:
            problems.append(f"  {path.name}: {error}")
            continue
        if photo.digest in seen:
            notes.append(f"{path.name} shows the same pixels as {seen[photo.digest]}: it counts twice")
        seen.setdefault(photo.digest, path.name)
        photos.append(photo)
    if problems:
        raise InputError(f"{len(problems)} of {len(files)} photos in {folder} can't be used:\n" + "\n".join(problems))
    return Photos(photos, notes)


def _read(path: Path, smallest: int, max_pixels: int) -> Photo:
    if path.suffix.lower() in HEIC:
        raise InputError("HEIC is not read: export it as JPEG or PNG")
    if path.stat().st_size == 0:
        raise InputError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                width, height = opened.size
                if width * height > max_pixels:
                    raise InputError(f"{width}x{height} is over the limit of {max_pixels} pixels: make it smaller")
                if min(width, height) < smallest:
                    raise InputError(f"{width}x{height} is too small: the shorter side must be at least {smallest}")
                opened.load()
                image = to_rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        raise InputError(f"its size is over the limit of {max_pixels} pixels: make it smaller") from None
    except UnidentifiedImageError:
        raise InputError("not a picture that can be read: export it again as JPEG or PNG") from None
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"the file is damaged ({error}): export it again as JPEG or PNG") from None
    return Photo(path, image, hashlib.sha256(image.tobytes() + str(image.size).encode()).hexdigest())


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: alpha on white, 16 bits scaled down, palettes and CMYK converted."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if values.max(initial=0) > 255:
            values = values / 257
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def fit_to(image: Image.Image, height: int, width: int, crop: Crop | None = None) -> Image.Image:
    """Cut out `crop` (fractions), scale bilinearly until it covers the size, and cut the centre."""
    if crop is not None:
        w, h = image.size
        left, top, right, bottom = crop
        box = (round(left * w), round(top * h), round(right * w), round(bottom * h))
        if box[2] <= box[0] or box[3] <= box[1]:
            raise InputError(f"the crop {crop} leaves nothing of a {w}x{h} photo")
        image = image.crop(box)
    factor = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
