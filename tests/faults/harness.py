"""Runs the command line in a fork of a warm process, and holds every outcome against one check."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# How many cases each family gives: `make soak` raises it.
CASES = int(os.environ.get("FAULT_CASES", "30"))
SECRET = "s3cr3t"


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def run(folder: Path, *arguments: str, seconds: float = 60, **environment: str) -> Outcome:
    """`arbooth ARGUMENTS` in a project, in a forked child; ended when it takes too long."""
    logs = [folder.parent / f"{os.getpid()}.{name}" for name in ("out", "err")]
    child = os.fork()
    if child == 0:
        _child(folder, list(arguments), environment, logs)
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"arbooth {arguments} took more than {seconds} s")
        time.sleep(0.005)
    out, err = (log.read_bytes().decode("utf-8", "replace") for log in logs)
    for log in logs:
        log.unlink()
    return Outcome(os.waitstatus_to_exitcode(status), out, err)


def _child(folder: Path, arguments: list[str], environment: dict, logs: list[Path]) -> None:
    code = 99
    try:
        for number, log in zip((1, 2), logs):
            opened = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(opened, number)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, encoding="utf-8", errors="strict") for n in (1, 2))  # noqa: SIM115
        os.environ.update({"ARBOOTH_PROJECT": str(folder), **environment})
        os.chdir(folder)
        sys.argv = ["arbooth", *arguments]
        import contextlib

        import torch

        # The first call after a fork finds the parent's pool of threads gone, and says so; the next makes one.
        for _ in range(2):
            with contextlib.suppress(RuntimeError):
                torch.set_num_threads(1)
        from arbooth.cli import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time, without what commands may always write."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not path.is_symlink() and not {".git", ".dvc", ".arbooth"} & set(Path(name).parts):
            found[name] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def check(project: Path, *arguments: str, may_write: bool = False, **environment: str) -> Outcome:
    """Exit code 0 or 2, one clear sentence and no traceback, nothing outside, nothing half-written, no secret.

    Args:
        may_write: whether a run that is refused may still have written (a stage before the one that refused).
    """
    outside = {p: p.read_bytes() for p in project.parent.iterdir() if p.is_file()}
    before = snapshot(project)
    done = run(project, *arguments, **environment)
    told = f"arbooth {arguments}: {done.code}\n{done.said[-3000:]}"
    assert done.code in (0, 2), told
    assert "Traceback" not in done.said, told
    assert SECRET not in done.said, told
    assert not any(ord(c) < 32 and c not in "\n\t\r" for c in done.said), told
    assert len(done.said) < 20_000, told
    if done.code == 2:
        errors = [line for line in done.err.splitlines() if line.lower().startswith(("error:", "usage:"))]
        assert errors, told
        if not may_write:
            assert snapshot(project) == before, told
    assert {p: p.read_bytes() for p in project.parent.iterdir() if p.is_file()} == outside, told
    assert not list(project.rglob("*.part")), told
    assert not list(project.parent.rglob("pwned")), told
    return done


def seeds(family: str) -> list[int]:
    """The cases of a family; each is drawn from its number alone."""
    return list(range(CASES))


def drawn(family: str, number: int) -> random.Random:
    return random.Random(f"{family} {number}")


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A file after bad luck: cut off, a bit flipped, a stretch of zeros, emptied, doubled, or other bytes in front."""
    at = rng.randrange(max(1, len(content)))
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :] if content else b"",
        lambda: content[:at] + bytes(min(200, len(content) - at)) + content[at + 200 :],
        lambda: b"",
        lambda: content + content,
        lambda: rng.randbytes(20) + content,
        lambda: rng.randbytes(500),
    ]
    return rng.choice(ways)()


def copied(source: Path, folder: Path) -> Path:
    """A project of its own for one case, beside files that must not change."""
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")
    shutil.copytree(source, folder / "project", symlinks=True, ignore=shutil.ignore_patterns(".git", "cache", "tmp"))
    return folder / "project"
