"""Photos -> upright, cropped, resized pictures and a manifest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from arbooth.data.bases import Base
from arbooth.data.files import whole_folder, write_json
from arbooth.data.manifest import MANIFEST, photos_digest
from arbooth.data.photos import picture_of, read_photos
from arbooth.data.views import GROUNDS, views_of
from arbooth.method.prompts import of_photos, same_name

if TYPE_CHECKING:
    from arbooth.stages.job import Job

logger = logging.getLogger(__name__)


def run(job: Job) -> None:
    base: Base = job.base
    height, width = base.picture_size
    photos = read_photos(job.reads["photos"], min(height, width) // 2, job.project.settings.max_pixels)
    subject = job.params.subjects[job.key]
    crops = of_photos(subject.crops, [photo.path.name for photo in photos.photos], f"subjects.{job.key}.crops")
    for note in photos.warnings:
        logger.warning(note)
    manifest, by_name = [], {photo.path.name: photo for photo in photos.photos}
    with whole_folder(job.writes["images"]) as folder:
        for index, view in enumerate(views_of(list(by_name), subject.background, base)):
            photo, crop = by_name[view.photo], crops.get(same_name(view.photo))
            picture = picture_of(photo, view.ground, base, crop, subject.background)
            if view.ground is None:
                picture.save(folder / f"{index:02d}.png")
                manifest.append({"photo": view.photo, "pixels": photo.digest, "crop": crop})
            else:  # what a subject is compared with, and shown by, is its photos
                (folder / GROUNDS).mkdir(exist_ok=True)
                picture.save(folder / GROUNDS / f"{index:02d}.png")
        digest = photos_digest([photo.path for photo in photos.photos])
        write_json(folder / MANIFEST, {"height": height, "width": width, "photos": manifest, "digest": digest})

