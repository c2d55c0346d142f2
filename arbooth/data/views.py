"""Which pictures are made of a subject's photos."""

from __future__ import annotations

from collections.abc import Sequence

from arbooth.data.bases import Base
from arbooth.method.prompts import View

GROUNDS = "grounds"  # among preprocessed pictures, the folder of those with another ground


def views_of(photos: Sequence[str], background: str, base: Base) -> list[View]:
    """One of each photo; where the background is removed others, on the base's own grounds: every photo, and every ground.

    A subject that is seen on a light ground alone is learned with it: on others it was seen to lose its thin parts, and in the
    dark to dissolve.

    Args:
        photos: file names, in order.
        background: "keep", or "remove".
    """
    views = [View(photo) for photo in photos]
    if background == "remove" and base.grounds:
        both = range(max(len(photos), len(base.grounds)))
        views += [View(photos[k % len(photos)], base.grounds[k % len(base.grounds)]) for k in both]
    return views
