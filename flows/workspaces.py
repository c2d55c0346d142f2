"""A workspace for every run: its subject's part of the project, at the deployed commit or as the folder stands.

No two runs share a lock, a lock file or a folder, so what one run costs does not grow with the number of subjects, and
nothing of one machine's paths leaves it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from arbooth.creating import class_in, workspace
from arbooth.errors import DvcFailed, InputError, RemoteFailed
from arbooth.graph import pipelines
from arbooth.owner import named
from arbooth.project import COMMIT, OWNER_FILE, WORKSPACES, Project, dead_workspaces

# Less free disk than this, in bytes, and a machine leaves runs to others.
ROOM = 2**29
# What a clone leaves out: what belongs to other subjects, and what no stage reads.
LEFT_OUT = ("subjects", "classes", "tests", "docs", "benchmarks")


def make(
    host: Project, run: str, subject: str | None, class_name: str | None, commit: str | None, say: Callable[[str], None]
) -> Project:
    """A project cut down to a subject and its class, or to a class.

    Args:
        host: the checkout on this machine: its cache, weights, resume files and settings are used.
        run: a name for the folder.
        commit: what to clone; None takes the checkout as it stands, changes included.

    Raises:
        InputError: no such subject or class.
        RemoteFailed: git's remote or DVC's does not give what is needed, or there is no room for it.
    """
    folder = host.home / WORKSPACES / run
    sweep(host)
    shutil.rmtree(folder, ignore_errors=True)  # of a try before
    folder.mkdir(parents=True)
    (folder / OWNER_FILE).write_text(named(), encoding="utf-8")
    source = clone(host, commit, folder / "code", subject) if commit else host
    class_name = class_name or class_in(source, str(subject))
    project = workspace(source, folder / "project", subject, class_name, host)
    at, clean = (commit, True) if commit else host.commit()
    (project.root / COMMIT).write_text(f"{at}{' clean' if clean else ''}", encoding="utf-8")
    say(f"workspace of {subject or class_name} at {f'commit {commit[:12]}' if commit else host.root}")
    _stamp(project, folder / "code")
    return project


def remove(host: Project, run: str) -> None:
    shutil.rmtree(host.home / WORKSPACES / run, ignore_errors=True)


def has_room(host: Project) -> bool:
    """Whether a run fits on this machine's disk at all."""
    folder = host.home / WORKSPACES
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free > ROOM


def sweep(host: Project) -> list[Path]:
    """Remove the workspaces of runs that were killed on this machine."""
    gone = dead_workspaces(host.home)
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def clone(host: Project, commit: str, folder: Path, subject: str | None) -> Project:
    """The project at a commit of its remote, without what other subjects have; objects that are here are not fetched.

    Raises:
        RemoteFailed: git can't get it.
    """
    prefix = host.git("rev-parse", "--show-prefix")
    try:
        return _cloned(host, commit, folder, subject, prefix)
    except InputError as error:
        raise RemoteFailed(str(error)) from None


def _cloned(host: Project, commit: str, folder: Path, subject: str | None, prefix: str) -> Project:
    url = host.git("remote", "get-url", remote_of(host))
    host.git("clone", "-q", "--no-checkout", "--reference-if-able", str(top_of(host)), url, str(folder))
    code = Project(folder)
    there = f"/{prefix}"
    code.git("sparse-checkout", "set", "--no-cone", "/*", *(f"!{there}{name}/" for name in LEFT_OUT),
             f"!{there}photos/*", *([f"{there}photos/{subject}.dvc"] if subject else []))  # fmt: skip
    code.git("checkout", "-q", "--detach", commit)
    return Project(folder / prefix)


def top_of(project: Project) -> Path:
    return Path(project.git("rev-parse", "--show-toplevel"))


def remote_of(project: Project) -> str:
    """The git remote that machines clone from: that of the branch, or `origin`, or the only one; "" without any."""
    remotes = project.git("remote").split()
    try:
        upstream = project.git("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}").partition("/")[0]
    except InputError:
        upstream = ""
    for name in (upstream, "origin", *remotes):
        if name in remotes:
            return name
    return ""


def _stamp(project: Project, code: Path) -> None:
    """Write down which code runs: that of the clone, where the project's repository holds it."""
    if not (code / "arbooth" / "__init__.py").is_file():
        project.write_stamp()
        return
    os.environ["PYTHONPATH"] = str(code)  # of this run's process: all that it starts
    call(project, "graph")
    call(project, "stage", "stamp")


def call(project: Project, *arguments: str) -> str:
    """A command of arbooth in a project, by the code that belongs to the run; what it prints.

    Raises:
        InputError: it failed, with its own words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "arbooth", *arguments],
        cwd=project.root,
        env={**os.environ, "ARBOOTH_PROJECT": str(project.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or done.stderr.splitlines()
        raise InputError(
            (said or [f"arbooth {arguments[0]} exited with {done.returncode}"])[-1].removeprefix("error: ")
        )
    return done.stdout


def bring(project: Project, subject: str | None, locks: dict[str, str], remote: bool) -> bool:
    """The photos, and whatever was made before by these records, from the cache or the remote.

    Returns:
        Whether all of it came; without the photos it does not return.

    Raises:
        RemoteFailed: the photos did not come.
    """
    try:
        project.write_locks(locks)
    except InputError:  # of another version's stages
        locks = {}
    made = pipelines(locks)
    photos = [f"photos/{subject}.dvc"] if subject and not project.photos(subject).is_dir() else []
    command = ["pull" if remote else "checkout", "-q"]
    for targets, needed in (([*photos, *made], False), (photos, True)):
        if not targets:
            return not needed
        try:
            project.dvc(*command, *targets, say=lambda _: None)
            return not needed
        except DvcFailed as error:
            if needed:
                said = error.lines[-1] if error.lines else error
                raise RemoteFailed(f"the photos of {subject!r} did not come: {said}") from None
    return False


def push(project: Project, *targets: str) -> None:
    project.dvc("push", "-q", *targets, say=lambda _: None)
