"""A project: a folder with params.yaml, and the one place that knows where everything of it lies."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth import dvcfiles, graph, owner
from arbooth.data.files import read_json, whole_file, write_json
from arbooth.errors import NAME, DvcFailed, InputError, checked_name
from arbooth.params import Params, load_params
from arbooth.settings import Settings, torch_device

if TYPE_CHECKING:
    import torch

    from arbooth.data.bases import Base

Paths = dict[str, Path]
# Of the machine's state: a folder for every run that is at work, with the process that it belongs to.
WORKSPACES, OWNER_FILE = ".arbooth/fleet", "owner"
# Beside the settings: where the machine's state of a workspace is, and what the project is called by DVC.
HOME, COMMIT, DVC_STAGE, DVC_ROOT = ".arbooth/home", ".arbooth/commit", "DVC_STAGE", "DVC_ROOT"


class Project:
    """One project. Several may be held at once, by several threads: it has no state but its paths.

    Args:
        root: folder of params.yaml; by default what ARBOOTH_PROJECT names, or the working folder. (A stage that
            DVC started works where DVC put it, whatever the variable says.)
    """

    def __init__(self, root: Path | str | None = None) -> None:
        if root is None:
            named = "" if DVC_STAGE in os.environ else os.environ.get("ARBOOTH_PROJECT", "")
            root = Path(named).expanduser() if named else Path.cwd()
        self.root = Path(root).absolute()

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r})"

    # Parameters and what they name

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    def params(self, subject: str | None = None, overrides: Sequence[str] = ()) -> Params:
        """The parameters, with a subject's own overrides where one is named.

        Raises:
            InputError: the file, the subject or a value is invalid.
        """
        return load_params(self.params_file, subject, overrides)

    def base(self, params: Params) -> Base:
        """The base model at the picture's shape of the parameters; known, not loaded.

        Raises:
            InputError: no such base, or it has no such shape.
        """
        from arbooth.data.bases import load_base

        return load_base(params.base, self.bases, self.weights, params.picture.ratio, params.picture.pixels)

    def base_names(self) -> list[str]:
        return ["embedded", *sorted(path.stem for path in self.bases.glob("*.json"))]

    # Files of the project

    @property
    def bases(self) -> Path:
        """Folder of the records of imported bases."""
        return self.root / "bases"

    def photos(self, subject: str) -> Path:
        return self.root / "photos" / checked_name(subject, "a subject")

    @property
    def outputs(self) -> Path:
        """Folder of pictures that were asked for one by one."""
        return self.root / "outputs"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"

    def paths(self, stage: str, key: str | None, params: Params) -> tuple[Paths, Paths]:
        """What a stage reads and writes for a subject or class: absolute paths by name.

        Raises:
            InputError: no such stage; the key is missing, superfluous or unknown.
        """
        if stage not in graph.TABLE:
            raise InputError(f"no stage {stage!r}: one of {', '.join(graph.TABLE)}")
        row = graph.TABLE[stage]
        known = {"subject": list(params.subjects), "class": list(params.classes), "all": []}[row.over]
        if row.over == "all" and key is not None:
            raise InputError(f"stage {stage} runs for all at once: leave {key!r} away")
        if row.over != "all" and key not in known:
            raise InputError(
                f"stage {stage} runs for one {row.over} (known: {', '.join(known) or 'none'}), not {key!r}"
            )
        class_name = params.class_of(str(key)) if row.over == "subject" else None

        def placed(wheres: dict[str, str]) -> Paths:
            return {name: self.root / graph.fill(where, key, class_name) for name, where in wheres.items()}

        return placed(row.reads), placed(row.writes)

    def adapter(self, subject: str, params: Params) -> Path:
        """The trained adapter of a subject.

        Raises:
            InputError: no such subject, or it is not trained yet.
        """
        if not NAME.fullmatch(subject) or subject not in params.subjects:
            known = ", ".join(params.subjects) or "none yet"
            raise InputError(f"no subject {subject!r} in {self.params_file} (known: {known})")
        path = self.paths("finetune", subject, params)[1]["adapter"]
        if not path.is_file():
            raise InputError(f"{subject!r} is not trained yet: run `dvc repro {graph.target('finetune', subject)}`")
        return path

    # This machine

    @cached_property
    def home(self) -> Path:
        """The project whose ledger, weights and resume files are used: itself, or the one it was cut from."""
        if DVC_STAGE in os.environ and os.environ.get(DVC_ROOT):
            # An experiment in a temporary folder, which DVC deletes: the folder it was started in.
            parent = Path(os.environ[DVC_ROOT]).absolute()
            here = next((above for above in (self.root, *self.root.parents) if (above / ".dvc").is_dir()), parent)
            if here != parent and here.is_relative_to(parent / ".dvc" / "tmp"):
                return parent / self.root.relative_to(here)
        note = self.root / HOME
        return Path(note.read_text(encoding="utf-8").strip()) if note.is_file() else self.root

    @cached_property
    def settings(self) -> Settings:
        return Settings.read(self.home)

    @property
    def weights(self) -> Path:
        """Folder of imported base models."""
        return self.home / self.settings.weights

    @property
    def encoders(self) -> Path:
        """Folder of DINO, CLIP and LPIPS."""
        return self.home / self.settings.encoders

    def resume_file(self, subject: str) -> Path:
        return self.home / self.settings.resume / f"{checked_name(subject, 'a subject')}.pt"

    @property
    def tracking_uri(self) -> str:
        """MLFLOW_TRACKING_URI, or a database of the project: the one place with this default."""
        return self.settings.tracking_uri or f"sqlite:///{self.home / '.arbooth' / 'mlflow.db'}"

    @property
    def ledger_files(self) -> Path:
        """Where MLflow's files go if its address is that of a bare database."""
        return self.home / ".arbooth" / "mlartifacts"

    @property
    def device(self) -> torch.device:
        return torch_device(self.settings.device)

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Hold a lock: a stage orphaned by a killed `dvc` goes on writing, and must not get company.

        Raises:
            InputError: another process holds it.
        """
        from filelock import FileLock, Timeout

        folder = self.root / ".arbooth" / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        owner = folder / f"{what}.pid"
        try:
            with FileLock(folder / what, timeout=0):
                owner.write_text(str(os.getpid()))
                yield
        except Timeout:
            pid = owner.read_text() if owner.exists() else "unknown"
            raise InputError(f"{what} is already running as process {pid}: wait for it, or end it") from None

    # DVC

    def dvc(self, *arguments: str, say: Callable[[str], None] | None = None) -> None:
        """Run DVC here, in a process group of its own that ends with us.

        Args:
            say: is handed every line; without it they go where ours do.

        Raises:
            DvcFailed: it ended with an error.
        """
        # The stages' commands are `arbooth ...` of this same environment, whoever started us.
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.root,
            env={**os.environ, "PATH": scripts, owner.OWNER: owner.named()},
            stdout=subprocess.PIPE if say else None,
            stderr=subprocess.STDOUT if say else None,
            text=True,
            start_new_session=True,
        )
        lines: list[str] = []
        try:
            for line in process.stdout or ():
                lines = [*lines[-9:], line.rstrip()]
                if say and lines[-1]:
                    say(lines[-1])
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        if code:
            raise DvcFailed(f"dvc {' '.join(arguments)}", code, lines)

    def cache(self) -> Path:
        """DVC's cache folder."""
        lines: list[str] = []
        self.dvc("cache", "dir", say=lines.append)
        return self.root / lines[-1]

    def repro(self, stage: str, key: str | None, say: Callable[[str], None] | None = None) -> None:
        """Bring one stage up to date, and none before it."""
        for name in dvcfiles.cut(self, "dvc.lock" if key is None else graph.lock(graph.TABLE[stage].over, key)):
            dvcfiles.mend(self, name)
        self.write_stamp()
        self.dvc("repro", "--single-item", graph.target(stage, key), say=say)

    def is_current(self, stage: str, key: str | None) -> bool:
        """Whether a stage's outputs are what its inputs and code would give."""
        self.write_stamp()
        return self.has(stage, key)

    def has(self, stage: str, key: str | None) -> bool:
        """The same, by the code that was written down last."""
        try:
            self.dvc("status", "-q", graph.target(stage, key), say=lambda _: None)
        except DvcFailed:
            return False
        return True

    def write_stamp(self) -> Path:
        """What the project's files don't tell DVC: which base, and the code of every stage, as installed.

        Raises:
            InputError: params.yaml names other subjects than the dvc.yaml files do, or an unknown base.
        """
        from arbooth.closure import digest

        params = self.params()
        stale = self.stale_graph(params)
        if stale:
            raise InputError(f"{stale[0]} is not what params.yaml asks for: run `arbooth graph`, then this again")
        base = self.base(params)
        params.check_scales(len(base.schedule))
        code = {
            name: digest(f"arbooth.stages.{name}", stage.package)
            for name, stage in graph.TABLE.items()
            if not stage.always
        }
        stamp = {"base": f"{base.name} {base.content}", "code": code}
        path = self.root / graph.STAMP
        if not path.is_file() or read_json(path) != stamp:
            write_json(path, stamp)
        return path

    def commit(self) -> tuple[str, bool]:
        """git's commit here and whether nothing of git's was changed since, DVC's records aside; ("", False) outside git.

        A workspace's is that of the project it was cut from.
        """
        note = self.root / COMMIT
        if note.is_file():
            commit, _, clean = note.read_text(encoding="utf-8").partition(" ")
            return commit, clean == "clean"
        try:
            commit = self.git("rev-parse", "HEAD")
            changed = self.git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
        except InputError:
            return "", False
        return commit, not changed

    def git(self, *arguments: str) -> str:
        """What git says here.

        Raises:
            InputError: it refuses, or is not installed.
        """
        try:
            done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise InputError("git is not installed: install it with your system's package manager") from None
        if done.returncode:
            said = next(iter(done.stderr.strip().splitlines()), f"it exited with {done.returncode}")
            raise InputError(f"git {arguments[0]} in {self.root}: {said}")
        return done.stdout.strip()

    def lock_files(self, subject: str | None, class_name: str) -> list[str]:
        """Where DVC records what was made of a subject and of its class, relative to the project."""
        names = [graph.lock("subject", subject)] if subject else []
        return [*names, graph.lock("class", class_name)]

    def state_of(self, tracked: str, params: Params) -> str | None:
        """What a lock or a photos/NAME.dvc says and the file system of its files; None where one of those is missing."""
        if tracked.endswith(".dvc"):
            paths = [(self.root / tracked).with_suffix("")]
        else:
            over, key = graph.of_lock(tracked)
            stages = (name for name, stage in graph.TABLE.items() if stage.over == over)
            paths = [path for name in stages for path in self.paths(name, key, params)[1].values()]
        if not all(path.exists() for path in paths):
            return None
        stats = [(s.st_ino, s.st_mtime_ns, s.st_size) for s in (path.stat() for path in paths)]
        return hashlib.sha256(f"{(self.root / tracked).read_text()}\0{stats}".encode()).hexdigest()

    def read_locks(self, subject: str | None, class_name: str) -> dict[str, str]:
        """The texts of those that are there."""
        paths = {name: self.root / name for name in self.lock_files(subject, class_name)}
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}

    def write_locks(self, locks: Mapping[str, str]) -> list[str]:
        """Take over what DVC recorded elsewhere; the dvc.yaml files beside which something changed.

        Raises:
            InputError: a name that is none of a lock, or a text that is no record of DVC's.
        """
        changed = []
        for name, text in locks.items():
            graph.check_lock(name, text)
            path = self.root / name
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")
            changed.append(name)
        return graph.pipelines(changed)

    # The dvc.yaml files

    def _graph(self, params: Params) -> dict[str, str]:
        return graph.files({name: params.class_of(name) for name in params.subjects}, params.classes)

    def stale_graph(self, params: Params) -> list[str]:
        """The dvc.yaml files that are missing, superfluous, or say something else than the parameters."""
        wanted = self._graph(params)
        found = {str(path.relative_to(self.root)): path for path in self._graph_files()}
        odd = [name for name, text in wanted.items() if name not in found or found[name].read_text() != text]
        return odd + sorted(set(found) - set(wanted))

    def write_graph(self) -> list[str]:
        """Write the dvc.yaml files anew; returns those that changed. A subject's lock goes with its file.

        Raises:
            InputError: params.yaml is invalid.
        """
        params = self.params()
        wanted, changed = self._graph(params), self.stale_graph(params)
        for name in changed:
            path = self.root / name
            if name in wanted:
                with whole_file(path) as part:
                    part.write_text(wanted[name], encoding="utf-8")
                continue
            for left in (path, path.with_name("dvc.lock")):
                left.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        return changed

    def _graph_files(self) -> list[Path]:
        return [path for over in ("", "subjects/*/", "classes/*/") for path in self.root.glob(f"{over}dvc.yaml")]


def dead_workspaces(home: Path) -> list[Path]:
    """Folders of runs that were killed on this machine."""
    found = []
    for folder in (home / WORKSPACES).glob("*"):
        note = folder / OWNER_FILE
        if note.is_file() and not owner.process_is_there(note.read_text(encoding="utf-8")):
            found.append(folder)
    return found
