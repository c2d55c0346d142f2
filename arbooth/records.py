"""DVC's own records, which it writes in place: a process killed in that moment leaves one that DVC no longer reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import whole_file
from arbooth.errors import InputError

if TYPE_CHECKING:
    from arbooth.project import Project

_RWLOCK = ".dvc/tmp/rwlock"
# Each is written while DVC holds a file: what is cut and not held was left by a process that is gone.
_GUARDS = {_RWLOCK: ".dvc/tmp/rwlock.lock", "dvc.lock": ".dvc/tmp/lock"}


def cut(project: Project, *patterns: str) -> list[str]:
    """Those that end in the middle: the lock of paths, and of the dvc.lock files all or those of some patterns."""
    root = project.root
    patterns = patterns or ("dvc.lock", "subjects/*/dvc.lock", "classes/*/dvc.lock")
    locks = sorted(str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern))
    return [name for name in (_RWLOCK, *locks) if not _whole(root / name)]


def mend(project: Project, name: str) -> str:
    """Put the committed one in the place of one that is cut, or nothing; DVC's cache of runs fills the rest.

    Returns:
        What was done, "" if it is whole after all.

    Raises:
        InputError: another process of DVC's holds it.
    """
    from dvc.lock import Lock, LockError

    path = project.root / name
    try:
        with Lock(str(project.root / _GUARDS.get(name, _GUARDS["dvc.lock"]))):
            if _whole(path):
                return ""
            try:
                text = "" if name == _RWLOCK else project.git("show", f"HEAD:./{name}") + "\n"
            except InputError:
                text = ""
            if not text or not _is_lock(text):
                path.unlink()
                return f"{name}: removed, DVC makes it anew"
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")
            return f"{name}: the committed one, DVC brings it up to date"
    except LockError:
        raise InputError(f"{name} is cut and held by a process of DVC's: wait for that, then try again") from None


def _whole(path: Path) -> bool:
    """Raises nothing: what is not there is whole."""
    try:
        text = path.read_text(encoding="utf-8")
        return bool(json.loads(text or "{}") is not None) if path.name == "rwlock" else _is_lock(text)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def _is_lock(text: str) -> bool:
    """Whether every stage's entry is there to its last hash."""
    import yaml

    try:
        data = yaml.load(text, Loader=yaml.CSafeLoader)
        return bool(data["schema"]) and all(_is_entry(entry) for entry in data["stages"].values())
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        return False


def _is_entry(entry: dict) -> bool:
    files = [*entry.get("deps", ()), *entry.get("outs", ())]
    hashes = all(file["path"] and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", file["md5"]) for file in files)
    sizes = all(isinstance(file.get("size", 0), int) and isinstance(file.get("nfiles", 0), int) for file in files)
    params = all(isinstance(values, dict) for values in entry.get("params", {}).values())
    return bool(entry["cmd"]) and hashes and sizes and params
