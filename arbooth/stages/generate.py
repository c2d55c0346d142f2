"""Adapter -> pictures with prompt, seed and settings in their metadata, and a contact sheet."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image

from arbooth.data.bases import load_base
from arbooth.data.files import whole_folder, write_json
from arbooth.data.records import contact_sheet, write_picture
from arbooth.model.sampling import Sampling
from arbooth.painter import Painter, Painting
from arbooth.progress import track
from arbooth.settings import settings, torch_device


def prompts_of(params, key: str) -> list[dict]:
    """Every picture to paint: its prompt, the template that it came from, its kind and its index."""
    subject = params.subjects[key]
    noun = params.classes[subject.class_name].noun
    wanted = [
        {"kind": "subject", "template": template, "prompt": template.replace("{subject}", f"<S*> {noun}"), "index": i}
        for template in params.prompt_sets[subject.prompts]
        for i in range(params.generate.images_per_prompt)
    ]
    template = params.templates.prior
    prompt = template.replace("{class}", noun)
    wanted += [
        {"kind": "class", "template": template, "prompt": prompt, "index": i}
        for i in range(params.generate.class_images)
    ]
    return wanted


def write_paintings(folder: Path, wanted: list[dict], paintings: list[Painting]) -> None:
    """Numbered pictures, and index.json that says what each was asked to be."""
    rows = [{**row, "file": f"{number:04d}.png"} for number, row in enumerate(wanted)]
    for row, painting in zip(rows, paintings):
        write_picture(folder / row["file"], painting.pixels, painting.record)
    write_json(folder / "index.json", rows)


def run(params, key, reads, writes) -> None:
    here = settings()
    base = load_base(params.base, here.project, here.path("weights"))
    painter = Painter(base, torch_device(), params.picture.ratio, params.picture.pixels, params.compute)
    painter.add(reads["adapter"])
    wanted = prompts_of(params, key)
    paintings = painter.paint(
        [(row["prompt"], row["index"]) for row in wanted],
        params.seed,
        Sampling(**params.generate.model_dump(exclude={"images_per_prompt", "class_images"})),
        key,
        partial(track, label=f"generate {key}"),
    )
    with whole_folder(writes["images"]) as folder:
        write_paintings(folder, wanted, paintings)
    rows: dict[str, list[Image.Image]] = {}
    for row, painting in zip(wanted, paintings):
        rows.setdefault(row["prompt"], []).append(Image.fromarray(painting.pixels))
    contact_sheet(writes["sheet"], list(rows.items()))
    seconds = sorted(p.seconds for p in paintings)
    # Times differ from run to run: they lie beside the pictures, so that those stay the same bytes.
    write_json(writes["timing"], {"seconds_per_image": round(seconds[len(seconds) // 2], 4)})
