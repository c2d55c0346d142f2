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


def photo_files(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name; hidden files, folders and other files are none."""
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in files if p.suffix.lower() in (*READABLE, *HEIC))


def photos_digest(files: Sequence[Path]) -> str:
    """SHA-256 over names and contents: which photos something was made of."""
    lines = [f"{unicodedata.normalize('NFC', path.name)}\0{sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
