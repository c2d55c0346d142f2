"""`arbooth init`: a new project anywhere, from a recipe."""

from __future__ import annotations

from pathlib import Path

from arbooth.errors import InputError
from arbooth.project import Project
from arbooth.recipes import params_of


def create_project(folder: Path, recipe: str = "embedded") -> list[str]:
    """Make a project, with git and DVC where there are none.

    Returns:
        Lines that say what was done and what comes next.

    Raises:
        InputError: no such recipe, or a project is there already.
    """
    folder = folder.expanduser().absolute()
    text = params_of(recipe)
    if (folder / "params.yaml").exists():
        raise InputError(f"{folder} is a project already: edit its params.yaml, or choose another folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    project = Project.create(folder, text)
    lines = [f"made a project in {project.root} (recipe {recipe})", "next:"]
    if project.root != Path.cwd():
        lines.append(f"  cd {folder}")
    params = project.params()
    if params.base not in project.base_names():
        lines.append(f"  arbooth base import FOLDER_OF_ITS_FILES --name {params.base}")
    return [*lines, "  arbooth subject add NAME --class NOUN --photos FOLDER", "  dvc repro", "  arbooth summary"]
