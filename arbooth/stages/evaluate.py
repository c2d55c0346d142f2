"""Pictures and photos -> metrics, per prompt and summed up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import read_fields, read_rows, write_json, write_table
from arbooth.data.pictures import read_pictures
from arbooth.method.prompts import without_identifier
from arbooth.metrics.encoders import load_encoders
from arbooth.metrics.measuring import Asked, measured, summary
from arbooth.progress import track

if TYPE_CHECKING:
    from arbooth.stages.job import Job


def run(job: Job) -> None:
    encoders = load_encoders(job.params.evaluate.encoders, job.project.encoders, job.device)
    photos = read_pictures(sorted(job.reads["photos"].glob("*.png")))
    table = measured(encoders, [photos], _asked(job.reads["images"], f"evaluate {job.key}"), job.device)
    write_table(job.writes["prompts"], table, ["kind", "prompt", "images", *encoders.names.values()])
    seconds = read_fields(job.reads["timing"], seconds_per_image=float)["seconds_per_image"]
    write_json(job.writes["metrics"], {**summary(table, encoders.names), "seconds_per_image": seconds})


def _asked(images: Path, label: str) -> Iterator[Asked]:
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for row in read_rows(images / "index.json", kind=str, template=str, prompt=str, file=str):
        groups.setdefault((row["kind"], row["template"], row["prompt"]), []).append(images / row["file"])
    for (kind, template, prompt), files in track(groups.items(), label, len(groups)):
        yield Asked(kind, prompt, template, without_identifier(prompt), read_pictures(files))
