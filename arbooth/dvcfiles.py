"""DVC's own files: mended where a kill cut them, and what very many of them name brought in parts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import whole_file
from arbooth.errors import InputError
from arbooth.settings import without_secrets

if TYPE_CHECKING:
    from arbooth.project import Project

_RWLOCK = ".dvc/tmp/rwlock"
# DVC writes them in place: a process killed in that moment leaves one that DVC no longer reads. Each is written while DVC
# holds a file: what is cut and not held was left by a process that is gone.
_GUARDS = {_RWLOCK: ".dvc/tmp/rwlock.lock", "dvc.lock": ".dvc/tmp/lock"}
# Files of DVC's that are looked at together: its time grows with the square of what they name.
_PART = 20


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
    from dvc_data.hashfile.cache import Cache
    from dvc_data.index import DataIndex

    paths = [str(project.root / name) for name in names]
    try:
        # DVC opens and closes its list of links for each output. While somebody else has it open, SQLite folds its journal
        # into it once, not each time.
        with Repo(str(project.root)) as repo, closing(Cache(repo.state.links.directory)), lock_repo(repo):
            # Each read once, and told to DVC as the whole project's index: by name it reads them anew in each of its steps.
            indexes = [Index.from_file(repo, path) for path in paths]
            parts = [indexes[start : start + _PART] for start in range(0, len(indexes), _PART)]
            for part in parts if remote else ():
                if any(out.changed_cache() for index in part for out in index.outs if out.use_cache):
                    repo.__dict__["index"] = Index.from_indexes(repo, part)
                    repo.fetch()
            repo.data_index.close()
            repo._data_index = DataIndex()  # in memory: the one on disk is a query for every file
            for part in parts:
                repo.__dict__["index"] = Index.from_indexes(repo, part)
                repo.checkout([None])
    except CheckoutError as error:
        lost = ", ".join(os.path.relpath(path, project.root) for path in error.target_infos[:3])
        where = "cache nor its remote has" if remote else "cache has not got"
        raise InputError(f"{'neither ' if remote else ''}DVC's {where} {lost}: push it where it was made") from None
    except DvcException as error:
        raise InputError(f"DVC can't bring what is recorded: {' '.join(str(error).split())}") from None


def missing(project: Project, names: Sequence[str]) -> list[str]:
    """Which of these .dvc files name something that DVC's default remote lacks; a folder's list comes there last.

    Raises:
        InputError: the remote does not answer, or one of the files is none of DVC's.
    """
    from dvc.repo import Repo

    wanted = {name: _hash_in(project.root / name) for name in names}
    try:
        with Repo(str(project.root)) as repo:
            there = set()
            for kind in {kind for kind, _ in wanted.values()}:
                asked = [oid for other, oid in wanted.values() if other == kind]
                remote = repo.cloud.get_remote_odb(hash_name=kind)
                there |= {(kind, oid) for oid in remote.oids_exist(asked)}
                for lost in [oid for oid in asked if (kind, oid) not in there][:1]:
                    with suppress(FileNotFoundError):
                        remote.fs.fs.cat_file(remote.oid_to_path(lost))  # to HTTP, a host that is away just has nothing
    except Exception as error:  # of whatever library reaches it
        said = without_secrets(" ".join(str(error).split())) or type(error).__name__
        raise InputError(f"DVC's remote does not answer: {said}") from None
    return [name for name, named in wanted.items() if named not in there]


def _hash_in(path: Path) -> tuple[str, str]:
    """The kind of hash that a .dvc file names its one output by, and the hash."""
    import yaml

    try:
        (out,) = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["outs"]
        return str(out.get("hash", "md5-dos2unix")), str(out["md5"])  # none was named before DVC 3
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no file of DVC's ({error}): `dvc add` its folder again") from None


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
