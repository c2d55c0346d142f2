"""Users' photos: checked all together before anything runs, then oriented, cropped and resized."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFilter, ImageOps

from arbooth.data.bases import GROUND_PART, Base
from arbooth.data.cutout import cut_out
from arbooth.data.manifest import HEIC, MASK, READABLE, mask_file, photo_files
from arbooth.data.pictures import open_picture
from arbooth.errors import InputError

MOST = 20
# What Pillow raises of a file that is cut short or altered.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, OverflowError, TypeError, struct.error)
Crop = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photo:
    """One checked photo: upright RGB pixels, the digest of its decoded content, what to tell of it, and a mask of its size."""

    path: Path
    image: Image.Image
    digest: str
    note: str | None
    mask: Image.Image | None = None


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
    files = photo_files(folder)
    if not files:
        raise InputError(f"{folder} holds no photos: put 1 to {MOST} of {', '.join(READABLE)} there")
    if len(files) > MOST:
        raise InputError(f"{folder} holds {len(files)} photos: keep the best {MOST} or fewer")
    photos, problems, notes = [], [], []
    used = {*files, *filter(None, map(mask_file, files))}
    others = [p.name for p in sorted(folder.iterdir()) if p not in used and not p.name.startswith(".")]
    if others:
        more = ", ..." if len(others) > 3 else ""
        notes.append(
            f"{len(others)} files or folders in {folder} are no photos and are left out: {', '.join(others[:3])}{more}"
        )
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
        if photo.note:
            notes.append(f"{path.name}: {photo.note}")
        photos.append(photo)
    if problems:
        raise InputError(f"{len(problems)} of {len(files)} photos in {folder} can't be used:\n" + "\n".join(problems))
    return Photos(photos, notes)


def _read(path: Path, smallest: int, max_pixels: int) -> Photo:
    if path.suffix.lower() in HEIC:
        raise InputError("HEIC is not read: export it as JPEG or PNG")
    if path.stat().st_size == 0:
        raise InputError("the file is empty")
    note = None
    try:
        with open_picture(path, max_pixels) as opened:
            width, height = opened.size
            if min(width, height) < smallest:
                raise InputError(f"{width}x{height} is too small: the shorter side must be at least {smallest}")
            image, note = to_rgb(ImageOps.exif_transpose(opened))
        mask = _read_mask(path, image.size, max_pixels)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"the file is damaged ({error}): export it again as JPEG or PNG") from None
    pixels = image.tobytes() + (mask.tobytes() if mask is not None else b"")
    return Photo(path, image, hashlib.sha256(pixels + str(image.size).encode()).hexdigest(), note, mask)


def _read_mask(photo: Path, size: tuple[int, int], max_pixels: int) -> Image.Image | None:
    path = mask_file(photo)
    if path is None:
        return None
    try:
        with open_picture(path, max_pixels) as opened:
            mask = opened.convert("L")
    except InputError as error:
        raise InputError(f"its mask {path.name}: {error}") from None
    except DAMAGED as error:
        raise InputError(f"its mask {path.name} is damaged ({error}): draw it again as PNG") from None
    if mask.size != size:
        raise InputError(f"{path.name} is {mask.width}x{mask.height} and the photo, upright, {size[0]}x{size[1]}: make them one size")
    return mask


def to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Any mode to sRGB: alpha on white, deep greys scaled to 8 bits, an embedded profile followed.

    Returns:
        The picture, and what to tell of it: its profile can't be read, so its colours are taken as they are.

    Raises:
        InputError: numbers that are not finite.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image).convert("RGB"), None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    elif image.mode not in ("CMYK", "L", "RGB"):
        image = image.convert("RGB")
    if not profile:
        return image.convert("RGB"), None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in (ImageCms.getProfileDescription(source) or "").lower():
            return image.convert("RGB"), None
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB"), "its colour profile can't be read: its colours are taken as they are"
    return converted or image.convert("RGB"), None


def _grey(image: Image.Image) -> Image.Image:
    """Integers of more than 8 bits, or floats that fill 0 to 1 or 0 to 255, as 8 bits."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("it holds numbers that are not finite: export it again as JPEG or PNG")
    if image.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255
    elif values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def picture_of(photo: Photo, ground: str | None, base: Base, crop: Crop | None, background: str) -> Image.Image:
    """A photo as a base's model sees it (`prepared`), on one of the base's grounds if one is named.

    Raises:
        InputError: as for `prepared`; a ground that is not there, or not what was recorded.
    """
    behind, (height, width) = None, base.picture_size
    if ground is not None:
        with open_picture(base.verified(GROUND_PART + ground), 16 * height * width) as opened:
            behind = opened.convert("RGB")
    return prepared(photo, height, width, crop, background, behind)


def prepared(
    photo: Photo, height: int, width: int, crop: Crop | None, background: str, ground: Image.Image | None = None
) -> Image.Image:
    """A photo as the model sees it: cut to `crop`, without its background if that is to go, and of the picture's size.

    Args:
        crop: left, top, right, bottom fractions.
        background: "keep", or "remove".
        ground: what takes the background's place; else it is light.

    Raises:
        InputError: the crop leaves nothing, or no subject stands out.
    """
    image, mask = cropped(photo.image, crop), photo.mask and cropped(photo.mask, crop)
    if background == "remove":
        try:
            image = cut_out(image, width / height, mask, ground)
        except InputError as error:
            where = f"put a mask beside it ({photo.path.stem}{MASK}, white where the subject is), or keep the background"
            raise InputError(f"{photo.path.name}: {error}: {where}") from None
    return fit_to(image, height, width)


def cropped(image: Image.Image, crop: Crop | None) -> Image.Image:
    if crop is None:
        return image
    w, h = image.size
    left, top, right, bottom = crop
    box = (round(left * w), round(top * h), round(right * w), round(bottom * h))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise InputError(f"the crop {crop} leaves nothing of a {w}x{h} photo")
    return image.crop(box)


def fit_to(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale bilinearly until it covers the size, and cut the centre."""
    factor = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def look_like_photographs(photos: list[Photo]) -> bool:
    """Whether a camera made them: drawings have large areas without any grain."""
    shares = []
    for photo in photos:
        small = photo.image.convert("L")
        small.thumbnail((256, 256), Image.Resampling.BILINEAR)
        high, low = (
            np.asarray(small.filter(kind(3)), dtype=int) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter)
        )
        shares.append(float((high - low <= 3).mean()))
    return sum(shares) / len(shares) < 0.5
