"""Which code a stage runs: the modules that it imports, directly and through others, as they are installed.

DVC watches a hash of exactly these files (`artifacts/stamp.json`), wherever the package lies.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# They hand values and paths to a stage, or talk to people; what a stage writes does not depend on how. Samples
# are written by a stage, but for people to look at: a sheet that looks otherwise is no reason to train again.
HANDING = frozenset(
    f"arbooth.{name}"
    for name in (
        "closure",
        "dvcfiles",
        "errors",
        "graph",
        "owner",
        "params",
        "progress",
        "project",
        "settings",
        "stages",
        "stages.job",
        "stages.samples",
    )
)


def closure(module: str, package: Path = PACKAGE) -> set[str]:
    """Names of all modules of the package that a module runs with, itself included."""
    todo, found = [module], set()
    while todo:
        name = todo.pop()
        if name in found or name in HANDING:
            continue
        found.add(name)
        path = _file(name, package)
        todo += _imports(path, package, path.stat().st_mtime_ns)
    return found


def digest(module: str, data: tuple[str, ...] = (), package: Path = PACKAGE) -> str:
    """SHA-256 over the code of a module's closure, and over other files of the package that it reads."""
    files = {f"{name}.py": _file(name, package) for name in closure(module, package)}
    files |= {name: package / name for name in data}
    lines = [f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}" for name, path in sorted(files.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file(module: str, package: Path) -> Path:
    path = package.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@lru_cache(maxsize=512)
def _imports(path: Path, package: Path, changed: int) -> tuple[str, ...]:
    """Modules of the package that a file imports anywhere but for type checkers alone."""
    found = []
    for node in _running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from arbooth.data import caches` names a module, `from arbooth.data.caches import read` does not.
            found += [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
    ours = [name for name in found if name.startswith("arbooth.") and _file(name, package).is_file()]
    return tuple(name for name in ours if _file(name, package).name != "__init__.py" or name.count(".") == 1)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below one, without the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)
