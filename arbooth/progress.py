"""What a run says while it works: one progress bar for all that is long, and log lines for people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from arbooth.errors import printable

Item = TypeVar("Item")


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items behind a bar on standard error; it stays silent in the first two seconds."""
    from tqdm import tqdm

    return iter(
        tqdm(
            items,
            desc=label,
            total=total,
            delay=2,
            mininterval=0.5 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
            leave=True,
        )
    )


class _Lines(logging.Formatter):
    """Plain words for news, the level before anything worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = printable(record.getMessage())
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def log_to_terminal() -> None:
    """Send what `arbooth` logs to standard error; a library alone stays silent."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logger = logging.getLogger("arbooth")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    # What libraries warn of is for those who write code, not for those who type commands.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.getLogger("py.warnings").propagate = False
