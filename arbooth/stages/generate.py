"""Adapter -> pictures with prompt, seed and settings in their metadata, and a contact sheet."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image

from arbooth.data.files import whole_folder, write_json
from arbooth.method.prompts import with_class, with_subject
from arbooth.painting.folder import write_paintings
from arbooth.painting.painter import Painter
from arbooth.painting.sheet import contact_sheet, thumbnail
from arbooth.progress import track

if TYPE_CHECKING:
    from arbooth.params import Params
    from arbooth.stages.job import Job


def prompts_of(params: Params, key: str) -> list[dict]:
    """Every picture to paint: its prompt, the template that it came from, its kind and its index."""
    noun, template = params.noun(key), params.templates.prior
    wanted = [
        {"kind": "subject", "template": template, "prompt": with_subject(template, noun), "index": index}
        for template in params.prompt_sets[params.subjects[key].prompts]
        for index in range(params.generate.images_per_prompt)
    ]
    wanted += [
        {"kind": "class", "template": template, "prompt": with_class(template, noun), "index": index}
        for index in range(params.generate.class_images)
    ]
    return wanted


def run(job: Job) -> None:
    params = job.params
    painter = Painter(job.base, params.sampling, job.device, params.compute, params.generate.batch)
    painter.add(job.reads["adapter"], job.key)
    wanted = prompts_of(params, job.key)
    paintings = painter.paint(
        [(row["prompt"], row["index"]) for row in wanted],
        params.seed,
        painter.sampling(),
        job.key,
        partial(track, label=f"generate {job.key}"),
    )
    with whole_folder(job.writes["images"]) as folder:
        write_paintings(folder, wanted, paintings)
    rows: dict[str, list[Image.Image]] = {}
    for row, painting in zip(wanted, paintings):
        rows.setdefault(row["prompt"], []).append(Image.fromarray(painting.pixels))
    contact_sheet(job.writes["sheet"], list(rows.items()))
    thumbnail(job.writes["thumbnail"], [pictures[0] for pictures in rows.values()])
    # Times differ from run to run: they lie beside the pictures, so that those stay the same bytes.
    seconds = statistics.median_high(painting.seconds for painting in paintings)
    write_json(job.writes["timing"], {"seconds_per_image": round(seconds, 4)})
