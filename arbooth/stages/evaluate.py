"""Pictures and photos -> metrics, per prompt and summed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbooth.data.files import read_fields, read_rows, write_json, write_table
from arbooth.data.pictures import read_pictures
from arbooth.method.prompts import without_identifier
from arbooth.metrics.encoders import batched, load_encoders
from arbooth.metrics.scores import diversity, image_similarity, mean, text_similarity
from arbooth.progress import track

if TYPE_CHECKING:
    from arbooth.stages.job import Job


def run(job: Job) -> None:
    reads, device = job.reads, job.device
    encoders = load_encoders(job.params.evaluate.encoders, job.project.encoders, device)
    names = encoders.names
    photos = read_pictures(sorted(reads["photos"].glob("*.png")))
    photo_image, photo_joint = encoders.image_features(photos.to(device)), encoders.joint_features(photos.to(device))
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in read_rows(reads["images"] / "index.json", kind=str, template=str, prompt=str, file=str):
        groups.setdefault((row["kind"], row["template"], row["prompt"]), []).append(row["file"])
    table = []
    for (kind, template, prompt), files in track(groups.items(), f"evaluate {job.key}", len(groups)):
        images = read_pictures([reads["images"] / name for name in files])
        features = batched(encoders.image_features, images, device)
        joint = batched(encoders.joint_features, images, device)
        text = template.replace("{subject}", "{}") if encoders.literal_template else without_identifier(prompt)
        row = {"kind": kind, "prompt": prompt, "images": len(files)}
        if kind == "class":
            row[names["preservation"]] = image_similarity(photo_image, features)
        else:
            row[names["image"]] = image_similarity(photo_image, features)
            row[names["joint"]] = image_similarity(photo_joint, joint)
            row[names["text"]] = text_similarity(encoders.text_features(text), joint)
        row[names["diversity"]] = diversity(images.to(device), encoders.distance)
        table.append(row)
    write_table(job.writes["prompts"], table, ["kind", "prompt", "images", *names.values()])
    seconds = read_fields(reads["timing"], seconds_per_image=float)["seconds_per_image"]
    write_json(job.writes["metrics"], {**summary(table, names), "seconds_per_image": seconds})


def summary(table: list[dict], names: dict[str, str]) -> dict[str, float]:
    """Means over prompts; a metric that no prompt has is left out."""
    means = {name: mean([row.get(name) for row in table if row["kind"] == "subject"]) for name in names.values()}
    classes = [row for row in table if row["kind"] == "class"]
    means[names["preservation"]] = mean([row.get(names["preservation"]) for row in classes])
    means[f"{names['diversity']}_class"] = mean([row.get(names["diversity"]) for row in classes])
    return {name: round(value, 6) for name, value in means.items() if value is not None}
