"""Which photos a subject has: their files, and a digest of them that everything made of them carries."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from arbooth.data.files import sha256

MANIFEST = "manifest.json"
READABLE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
HEIC = (".heic", ".heif", ".avif")


MASK = ".mask.png"


def photo_files(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name; hidden files, folders, masks and other files are none."""
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in files if p.suffix.lower() in (*READABLE, *HEIC) and not p.name.lower().endswith(MASK))


def mask_file(photo: Path) -> Path | None:
    """Where somebody drew what of a photo is the subject: IMG.mask.png beside IMG.jpg."""
    path = photo.with_name(f"{photo.stem}{MASK}")
    return path if path.is_file() else None


def photos_digest(photos: Sequence[Path]) -> str:
    """SHA-256 over names and contents, those of masks as well: which photos something was made of."""
    files = [path for photo in photos for path in (photo, mask_file(photo)) if path is not None]
    lines = [f"{unicodedata.normalize('NFC', path.name)}\0{sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
