"""DVC's own files: mended where a kill cut them, and what very many of them name brought in parts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import whole_file
from arbooth.errors import InputError

if TYPE_CHECKING:
    from arbooth.project import Project

_RWLOCK = ".dvc/tmp/rwlock"
# DVC writes them in place: a process killed in that moment leaves one that DVC no longer reads. Each is written while DVC
# holds a file: what is cut and not held was left by a process that is gone.
_GUARDS = {_RWLOCK: ".dvc/tmp/rwlock.lock", "dvc.lock": ".dvc/tmp/lock"}
# Files of DVC's that are looked at together: its time grows with the square of what they name.
_PART = 50


def pull(project: Project, names: Sequence[str], remote: bool) -> None:
    """`dvc pull`, or `dvc checkout`, of everything that these files name, in time that grows with their number alone.

    Args:
        names: dvc.yaml and .dvc files, relative to the project.
        remote: what the cache lacks comes from DVC's remote.

    Raises:
        InputError: DVC can't bring it, in its words.
    """
    from dvc.exceptions import CheckoutError, DvcException
    from dvc.repo import Repo, lock_repo
    from dvc.repo.index import Index

    paths = [str(project.root / name) for name in names]
    try:
        with Repo(str(project.root)) as repo, lock_repo(repo):
            for start in range(0, len(paths), _PART):
                part = paths[start : start + _PART]
                # What these files alone say: of a whole project DVC reads every file anew at each call.
                repo.__dict__["index"] = Index.from_indexes(repo, (Index.from_file(repo, path) for path in part))
                repo.pull(part) if remote else repo.checkout(part)
    except CheckoutError as error:
        lost = ", ".join(os.path.relpath(path, project.root) for path in error.target_infos[:3])
        where = "cache nor its remote has" if remote else "cache has not got"
        raise InputError(f"{'neither ' if remote else ''}DVC's {where} {lost}: push it where it was made") from None
    except DvcException as error:
        raise InputError(f"DVC can't bring what is recorded: {' '.join(str(error).split())}") from None


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
