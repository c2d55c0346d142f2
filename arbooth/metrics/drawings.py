"""Which drawing does a picture show? Retrieval among all drawings of the embedded base's world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from arbooth.data.files import EMBEDDED
from arbooth.data.tensors import open_tensors
from arbooth.errors import InputError


@dataclass(frozen=True)
class Drawings:
    """Mean features of every drawing, seen and held out: names "set/emoji", features [N,F], l2-normalised."""

    names: list[str]
    features: Tensor

    def nearest_is_subject(self, pictures_NF: Tensor, photos_PF: Tensor, drawing: str | None) -> list[bool]:
        """For each picture: is the subject, known by its photos, nearer than every other drawing?

        Args:
            drawing: the subject's own, which its photos stand for; None where it has none.

        Raises:
            InputError: no drawing of that name.
        """
        if drawing is not None and drawing not in self.names:
            raise InputError(
                f"no drawing {drawing!r} in the embedded base's table: pack the base anew, or mend the name"
            )
        others = self.features[[i for i, name in enumerate(self.names) if name != drawing]]
        subject = F.normalize(photos_PF.mean(0), dim=0)
        return (pictures_NF @ subject > (pictures_NF @ others.T).amax(1)).tolist()


def load_drawings(embedded: Path = EMBEDDED) -> Drawings:
    """The table that the package carries.

    Raises:
        InputError: the file is missing or broken.
    """
    tensors, header = open_tensors(embedded / "drawings.safetensors")
    return Drawings(header["names"].split("\n"), tensors["features"].float())
