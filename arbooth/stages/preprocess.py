"""Photos -> upright, cropped, resized pictures and a manifest."""

from __future__ import annotations

import sys

from arbooth.data.bases import load_base
from arbooth.data.files import whole_folder, write_json
from arbooth.data.photos import fit_to, read_photos
from arbooth.errors import InputError
from arbooth.settings import settings


def run(params, key, reads, writes) -> None:
    here = settings()
    base = load_base(params.base, here.project, here.path("weights"))
    height, width = base.picture_size(base.quantizer(params.picture.ratio, params.picture.pixels))
    photos = read_photos(reads["photos"], min(height, width) // 2, here.max_pixels)
    crops = params.subjects[key].crops
    unknown = sorted(set(crops) - {p.path.name for p in photos.photos})
    if unknown:
        raise InputError(f"subjects.{key}.crops names photos that are not there: {', '.join(unknown)}")
    for note in photos.warnings:
        print(f"warning: {note}", file=sys.stderr)
    manifest = []
    with whole_folder(writes["images"]) as folder:
        for index, photo in enumerate(photos.photos):
            crop = crops.get(photo.path.name)
            fit_to(photo.image, height, width, crop).save(folder / f"{index:02d}.png")
            manifest.append({"photo": photo.path.name, "pixels": photo.digest, "crop": crop})
        write_json(folder / "manifest.json", {"height": height, "width": width, "photos": manifest})
