"""The resume file of an unfinished fine-tuning run."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arbooth.data.files import whole_file
from arbooth.data.tensors import checksum

logger = logging.getLogger(__name__)


class ResumeFile:
    """Saves at an interval and when SIGTERM or SIGINT asks; a file of another run is ignored.

    Use as a context manager: the signals are handled inside it, and the file is removed by `finish`.

    Args:
        path: outside of any stage's outputs, which DVC deletes before a stage runs.
        key: says which run this is (settings, base, data); a file with another key is stale.
        seconds: between two saves.
    """

    def __init__(self, path: Path, key: str, seconds: float) -> None:
        self.path, self.key, self.seconds = path, key, seconds
        self._last, self._pause = time.monotonic(), seconds
        self._stop = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> ResumeFile:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask_to_stop(self, *_) -> None:
        self._stop = True

    def stopping(self) -> bool:
        return self._stop

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._pause

    def load(self) -> dict | None:
        """The state of this run, or nothing: a file of another run, or a damaged one, is as good as none."""
        if not self.path.is_file():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            state = saved["state"]
            damaged = saved["checksum"] != checksum(_tensors(state))
        except Exception:  # torch has errors of its own for each kind of damage
            damaged = True
        if damaged:
            logger.warning("%s is damaged: fine-tuning starts afresh", self.path)
            return None
        return state if saved.get("key") == self.key else None

    def save(self, state: dict) -> None:
        started = time.monotonic()
        with whole_file(self.path) as part:
            torch.save({"key": self.key, "state": state, "checksum": checksum(_tensors(state))}, part)
        self._last = time.monotonic()
        # Large networks take a while to save: at most a twentieth of the time goes into it.
        self._pause = max(self.seconds, 20 * (self._last - started))

    def finish(self) -> None:
        """The run is done and its outputs are written."""
        self.path.unlink(missing_ok=True)


def _tensors(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of nested tables and lists, on the CPU, by its path."""
    if hasattr(tree, "__tensor_flatten__"):  # one that is made of others, as moments in eight bits are
        tree = {name: getattr(tree, name) for name in tree.__tensor_flatten__()[0]}
    if isinstance(tree, Tensor):
        return {prefix: tree.detach().cpu()}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    return {name: value for key, below in items for name, value in _tensors(below, f"{prefix}/{key}").items()}
