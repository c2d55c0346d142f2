"""Outputs appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arbooth.errors import InputError


def _embedded() -> Path:
    """What the package carries: base, encoders, judge.

    A registered model brings the package's code without it; then it is that of the installed package.
    """
    own = Path(__file__).resolve().parent.parent
    for finder in sys.meta_path if not (own / "embedded").is_dir() else ():
        for entry in [None, *[[place] for place in sys.path]]:
            spec = finder.find_spec("arbooth", entry) if hasattr(finder, "find_spec") else None
            installed = Path(spec.origin).parent if spec and spec.origin else own
            if (installed / "embedded").is_dir():
                return installed / "embedded"
    return own / "embedded"


EMBEDDED = _embedded()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the name only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        yield part
        _sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it replaces `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        for file in part.rglob("*"):
            _sync(file)
        if path.exists():
            shutil.rmtree(path)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def leftovers(folder: Path) -> list[Path]:
    """What killed processes left half-written below a folder."""
    return [path for path in folder.rglob(".*.part") if _is_dead(path)]


def _part(path: Path) -> Path:
    """Where to write aside; what a killed process left there of the same file goes."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if _is_dead(left):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    # Threads of a server may write the same file at once: each aside on its own.
    return path.with_name(f".{path.name}.{threading.get_ident()}.{os.getpid()}.part")


def _is_dead(part: Path) -> bool:
    number = part.name.removesuffix(".part").rpartition(".")[2]
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _sync(file: Path) -> None:
    """To the disk before a rename: a power cut must not leave a name without its content."""
    if file.is_file():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def write_json(path: Path, value) -> None:
    """Indented JSON with sorted keys and a final newline."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_table(path: Path, rows: list[dict], columns: list[str] | None = None) -> None:
    """CSV with a header; floats to six decimals, what a row lacks is empty. Columns are those of the first row."""
    with whole_file(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_json(path: Path):
    """Raises InputError: the file is not there, can't be read, or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there: run `dvc repro`, which makes it") from None
    except OSError as error:  # a folder in its place, say
        raise InputError(f"{path} can't be read ({error.strerror}): move it away and make it anew") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable as JSON ({error}): make it anew") from None


def read_fields(path: Path, **kinds: type) -> dict:
    """A JSON object that has these fields, of these types; `float` takes any finite number.

    Raises:
        InputError: the file is not there, or holds something else.
    """
    return _with_fields(read_json(path), path, kinds)


def read_rows(path: Path, **kinds: type) -> list[dict]:
    """A JSON list of such objects.

    Raises:
        InputError: as for `read_fields`.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(f"{path} holds no list: run `dvc repro`, which makes it")
    return [_with_fields(row, path, kinds) for row in rows]


def read_numbers(path: Path) -> dict[str, float]:
    """A JSON object of finite numbers: metrics.

    Raises:
        InputError: the file is not there, or holds something else.
    """
    numbers = read_json(path)
    if not isinstance(numbers, dict) or not all(map(_is_number, numbers.values())):
        raise InputError(f"{path} holds no table of numbers: run `dvc repro`, which makes it")
    return numbers


def _with_fields(value: Any, path: Path, kinds: dict[str, type]) -> dict:
    for name, kind in kinds.items():
        found = value.get(name) if isinstance(value, dict) else None
        if not (_is_number(found) if kind is float else isinstance(found, kind)):
            raise InputError(f"{path} does not say {name} as it should: run `dvc repro`, which makes it anew")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        InputError: the file is not there, holds no rows, or is not text.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or any(None in row or None in row.values() for row in rows):
            raise ValueError("rows are missing or cut off")
        return rows
    except (ValueError, csv.Error, FileNotFoundError) as error:
        raise InputError(f"{path} is not a readable table ({error}): run `dvc repro`, which makes it") from None


def visible_files(folder: Path) -> list[Path]:
    """Files under a folder, sorted, without those in `.hidden` or `__cache__` folders."""
    found = (p for p in folder.rglob("*") if p.is_file())
    return sorted(
        p
        for p in found
        if not any(part.startswith((".", "__")) and part != "__init__.py" for part in p.relative_to(folder).parts)
    )


def sha256(path: Path) -> str:
    """Hex digest of a file, or of a folder's files with their relative names, hidden and cached ones left out."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in visible_files(path):
            digest.update(f"{file.relative_to(path)}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as opened:
        while block := opened.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
