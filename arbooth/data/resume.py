"""The resume file of an unfinished fine-tuning run."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch

from arbooth.data.files import whole_file


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
        if not self.path.is_file():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        return state["state"] if state.get("key") == self.key else None

    def save(self, state: dict) -> None:
        started = time.monotonic()
        with whole_file(self.path) as part:
            torch.save({"key": self.key, "state": state}, part)
        self._last = time.monotonic()
        # Large networks take a while to save: at most a twentieth of the time goes into it.
        self._pause = max(self.seconds, 20 * (self._last - started))

    def finish(self) -> None:
        """The run is done and its outputs are written."""
        self.path.unlink(missing_ok=True)
