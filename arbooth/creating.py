"""Making projects: `arbooth init`, a workspace for one subject, the settings of a benchmark."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from arbooth.data.files import whole_file
from arbooth.edits import only
from arbooth.errors import InputError
from arbooth.params import load_params
from arbooth.project import HOME, Project
from arbooth.recipes import params_of

IGNORED = {
    ".gitignore": ("/artifacts/", "/outputs/", ".arbooth/", ".env"),
    ".dvcignore": ("__pycache__", "*.part", ".DS_Store", "Thumbs.db", "desktop.ini"),
}
DVC_CONFIG = '[core]\n    analytics = false\n    autostage = false\n[cache]\n    type = "reflink,hardlink,copy"\n'
# What DVC takes from the folder of the file that says it.
DVC_PATHS = ("url", "keyfile", "cert_path", "key_path", "credentialpath", "configpath", "gdrive_user_credentials_file",
             "gdrive_service_account_json_file_path")  # fmt: skip


def init(folder: Path, recipe: str = "embedded") -> list[str]:
    """Make a project anywhere, with git and DVC where there are none.

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
    project = create(folder, text)
    lines = [f"made a project in {project.root} (recipe {recipe})", "next:"]
    if project.root != Path.cwd():
        lines.append(f"  cd {folder}")
    params = project.params()
    if params.base not in project.base_names():
        lines.append(f"  arbooth base import FOLDER_OF_ITS_FILES --name {params.base}")
    return [*lines, "  arbooth subject add NAME --class NOUN --photos FOLDER", "  dvc repro", "  arbooth summary"]


def create(root: Path, params: str, *, home: Path | None = None, cache: Path | None = None) -> Project:
    """A project with these parameters, and DVC in it; one that is there gets them.

    Args:
        params: text of params.yaml.
        home: the project whose machine state it uses; it is then no repository of its own.
        cache: DVC's cache; its own by default.

    Raises:
        InputError: the parameters are invalid; nothing is written then.
    """
    project = Project(root)
    load_params(project.params_file, text=params)
    project.root.mkdir(parents=True, exist_ok=True)
    with whole_file(project.params_file) as part:
        part.write_text(params, encoding="utf-8")
    for name, lines in IGNORED.items():
        _append(project.root / name, lines)
    if home is not None:
        (project.root / HOME).parent.mkdir(exist_ok=True)
        (project.root / HOME).write_text(f"{home.absolute()}\n", encoding="utf-8")
    project.write_graph()
    if not (project.root / ".dvc").is_dir():
        if home is None:
            _init_dvc(project)
        else:
            _cut_dvc(project, cache)
    return project


def _init_dvc(project: Project) -> None:
    project.dvc("init", "-q", *_git(project.root), say=lambda _: None)
    config = project.root / ".dvc" / "config"
    with whole_file(config) as part:
        part.write_text(_with_scm(config.read_text(encoding="utf-8")), encoding="utf-8")


def _with_scm(text: str) -> str:
    """Our settings of DVC, and that it stands without git where `dvc init` said so."""
    return DVC_CONFIG.replace("[core]\n", "[core]\n    no_scm = true\n") if "no_scm" in text.lower() else DVC_CONFIG


def _cut_dvc(project: Project, cache: Path | None) -> None:
    """DVC's folder, by hand: five commands to make it would take longer than what is done there."""
    folder = project.root / ".dvc"
    (folder / "tmp").mkdir(parents=True)
    (folder / "config").write_text(DVC_CONFIG, encoding="utf-8")
    local = "[core]\n    no_scm = true\n" + (f"[cache]\n    dir = {cache.absolute()}\n" if cache else "")
    (folder / "config.local").write_text(local, encoding="utf-8")


def _git(root: Path) -> tuple[str, ...]:
    """How DVC is to stand with git here; makes a git repository where there is none."""
    if shutil.which("git") is None:
        return ("--no-scm",)
    asked = ["git", "rev-parse", "--show-toplevel"]
    top = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    if top.returncode:
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        return ()
    return () if Path(top.stdout.strip()).resolve() == root.resolve() else ("--subdir",)


def workspace(
    project: Project, folder: Path, subject: str | None, class_name: str, host: Project | None = None
) -> Project:
    """A project cut down to one subject and its class, or to a class alone.

    What DVC records there (subjects/NAME/dvc.lock, classes/NAME/dvc.lock) holds in the whole project as well.

    Args:
        subject: its photos are linked where they are there; else what DVC knows of them comes along, to be pulled.
        host: the project whose cache and machine state is used, if it is not this one: a checkout on this machine.

    Raises:
        InputError: no such subject or class, or its photos are neither there nor known to DVC.
    """
    host = host or project
    text = only(project.params_file.read_text(encoding="utf-8"), "subjects", {subject} if subject else set())
    text = only(text, "classes", {class_name})
    cut = create(folder, text, home=host.home, cache=host.cache())
    own, there = cut.root / ".dvc", host.root / ".dvc"
    _merge_settings(own / "config", [own / "config", project.root / ".dvc" / "config"], there)
    # What this machine says, say how it logs in at the remote; where a workspace stands is its own.
    _merge_settings(own / "config.local", [there / "config.local", own / "config.local"], there)
    copy_bases(project, cut)
    if subject and project.photos(subject).is_dir():
        link_photos(cut, subject, sorted(project.photos(subject).iterdir()))
    elif subject:
        tracked = project.photos(subject).with_suffix(".dvc")
        if not tracked.is_file():
            raise InputError(f"photos/{subject} is not there, and DVC does not know it: run `dvc add photos/{subject}`")
        cut.photos(subject).parent.mkdir()
        shutil.copy(tracked, cut.photos(subject).parent)
    return cut


def _merge_settings(file: Path, sources: list[Path], beside: Path) -> None:
    """DVC's settings of several files in one, which the later ones override; relative paths start at `beside`."""
    merged = configparser.ConfigParser(interpolation=None)
    merged.read(sources, encoding="utf-8")
    for section in merged.values():
        for name in set(DVC_PATHS) & set(section):
            value = section[name].strip("\"'")  # DVC quotes one with a comma
            if "://" not in value and not value.startswith("~"):
                path = os.path.normpath(beside.absolute() / value)
                section[name] = f'"{path}"' if set(path) & set(",#;") else path
    with file.open("w", encoding="utf-8") as out:
        merged.write(out)


def class_in(project: Project, subject: str) -> str:
    """The class of a subject, without reading what params.yaml says of all others.

    Raises:
        InputError: no such subject.
    """
    text = project.params_file.read_text(encoding="utf-8")
    return load_params(project.params_file, text=only(text, "subjects", {subject}), subject=subject).class_of(subject)


def copy_bases(source: Project, target: Project) -> None:
    """The records of one project's bases, for another."""
    target.bases.mkdir(exist_ok=True)
    for path in source.bases.glob("*.json"):
        shutil.copy(path, target.bases / path.name)


def link_photos(project: Project, subject: str, files: Sequence[Path]) -> None:
    """A subject's photos by link, in place of what is there."""
    folder = project.photos(subject)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file.absolute())


def _append(path: Path, lines: Sequence[str]) -> None:
    """Lines that a file lacks, at its end."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    missing = [line for line in lines if line not in text.splitlines()]
    if missing:
        with whole_file(path) as part:
            part.write_text(text + "".join(f"{line}\n" for line in missing), encoding="utf-8")
