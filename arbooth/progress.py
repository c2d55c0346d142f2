"""One progress bar for everything that takes longer than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
