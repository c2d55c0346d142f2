"""What encoders say of a subject's pictures, prompt by prompt: the same for ours and for those of any other method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from arbooth.metrics.encoders import Encoders, batched
from arbooth.metrics.scores import diversity, image_similarity, mean, text_similarity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Asked:
    """A prompt and what was painted for it.

    Attributes:
        kind: "subject", or "class" where the prompt names the class alone.
        prompt: as it is reported.
        template: the same with `{subject}` where the subject stands.
        plain: the same without an identifier, for text encoders.
        pictures: [N,3,H,W] in [0,1].
    """

    kind: str
    prompt: str
    template: str
    plain: str
    pictures: Tensor


def measured(encoders: Encoders, photos: list[Tensor], asked: Iterable[Asked], device: torch.device | str) -> list[dict]:
    """A row for every prompt: likeness to the photos, to the text, and diversity.

    Args:
        photos: of the subject, batches [P,3,H,W] in [0,1] of any sizes.
    """
    names = encoders.names
    photo_image, photo_joint = (
        torch.cat([encode(batch.to(device)) for batch in photos])
        for encode in (encoders.image_features, encoders.joint_features)
    )
    table = []
    for one in asked:
        features = batched(encoders.image_features, one.pictures, device)
        row = {"kind": one.kind, "prompt": one.prompt, "images": len(one.pictures)}
        if one.kind == "class":
            row[names["preservation"]] = image_similarity(photo_image, features)
        else:
            joint = batched(encoders.joint_features, one.pictures, device)
            text = one.template.replace("{subject}", "{}") if encoders.literal_template else one.plain
            row[names["image"]] = image_similarity(photo_image, features)
            row[names["joint"]] = image_similarity(photo_joint, joint)
            row[names["text"]] = text_similarity(encoders.text_features(text), joint)
        row[names["diversity"]] = diversity(one.pictures.to(device), encoders.distance)
        table.append(row)
    return table


def summary(table: list[dict], names: dict[str, str]) -> dict[str, float]:
    """Means over prompts; a metric that no prompt has is left out."""
    means = {name: mean([row.get(name) for row in table if row["kind"] == "subject"]) for name in names.values()}
    classes = [row for row in table if row["kind"] == "class"]
    means[names["preservation"]] = mean([row.get(names["preservation"]) for row in classes])
    means[f"{names['diversity']}_class"] = mean([row.get(names["diversity"]) for row in classes])
    return {name: round(value, 6) for name, value in means.items() if value is not None}
