"""Which pictures are made of a subject's photos."""

from __future__ import annotations

from collections.abc import Sequence

from arbooth.data.bases import Base
from arbooth.method.prompts import View

GROUNDS = "grounds"  # among preprocessed pictures, the folder of those with another ground


def views_of(photos: Sequence[str], background: str, base: Base) -> list[View]:
    """One of each photo; of one whose background is removed another, on one of the base's own grounds.

    A subject that is seen on a light ground alone is learned with it: on others it was seen to lose its thin parts.

    Args:
        photos: file names, in order.
        background: "keep", or "remove".
    """
    views = [View(photo) for photo in photos]
    if background == "remove" and base.grounds:
        views += [View(photo, base.grounds[k % len(base.grounds)]) for k, photo in enumerate(photos)]
    return views
