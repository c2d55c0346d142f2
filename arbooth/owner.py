"""A stage ends with whoever started it.

`kill -9` of a flow, a worker or `dvc` ends that process alone. What it had started would go on: it would hold the
GPU and write beside the run that takes its place.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

# Who started DVC, handed down to the stage that DVC starts.
OWNER = "ARBOOTH_OWNER"
# Whoever publishes, in words that the next try of the same knows again: a flow's is its run.
PUBLISHER = "ARBOOTH_PUBLISHER"
SECONDS = 1.0


def named() -> str:
    """This process, so that another one that gets its number later is not taken for it."""
    return f"{os.getpid()} {_started(os.getpid())}"


def end_with_owner() -> None:
    """End this process (SIGTERM: what it does is saved) when its parent, or the owner handed down, is no more."""
    owner, parent = os.environ.get(OWNER, ""), os.getppid()
    threading.Thread(target=_watch, args=(owner, parent), daemon=True, name="owner").start()


def _watch(owner: str, parent: int) -> None:
    waiting = threading.Event()
    while os.getppid() == parent and process_is_there(owner):
        waiting.wait(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def process_is_there(owner: str) -> bool:
    """Whether a process still runs, by what `named` said of it."""
    if not owner:
        return True
    number, _, started = owner.partition(" ")
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):  # somebody else's process, or a value that somebody typed
        return True
    return _started(int(number)) == started


def _started(number: int) -> str:
    """When a process started, in the kernel's words; a zombie has no time any more. Empty where there is no /proc."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]
