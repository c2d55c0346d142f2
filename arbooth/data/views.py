"""Which pictures are made of a subject's photos."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from arbooth.data.bases import GROUND, Base
from arbooth.data.photos import Crop, Photo, prepared
from arbooth.data.pictures import open_picture
from arbooth.method.prompts import View


def views_of(photos: Sequence[str], background: str, base: Base) -> list[View]:
    """One of each photo; of one whose background is removed another, on one of the base's own grounds.

    A subject that was only ever seen on a light ground is learned with it: on any other one it loses what is thin.

    Args:
        photos: file names, in order.
        background: "keep", or "remove".
    """
    views = [View(photo) for photo in photos]
    if background == "remove" and base.grounds:
        views += [View(photo, base.grounds[k % len(base.grounds)]) for k, photo in enumerate(photos)]
    return views


def picture_of(view: View, photo: Photo, base: Base, crop: Crop | None, background: str) -> Image.Image:
    """A view as the model sees it.

    Raises:
        InputError: as for `prepared`; a ground that is not there, or not what was recorded.
    """
    ground, (height, width) = None, base.picture_size
    if view.ground is not None:
        with open_picture(base.verified(GROUND + view.ground), 16 * height * width) as opened:
            ground = opened.convert("RGB")
    return prepared(photo, height, width, crop, background, ground)
