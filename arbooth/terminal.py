"""What every group of commands needs: the project that they are for, and how lines and paths are told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from arbooth.project import Project


def project_here() -> Project:
    """The project that the command is for; what it logs goes to the terminal."""
    from arbooth.progress import log_to_terminal
    from arbooth.project import Project

    log_to_terminal()
    return Project()


def say(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def short(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
