"""What a stage is handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arbooth.params import Params
from arbooth.project import Paths, Project

if TYPE_CHECKING:
    import torch

    from arbooth.data.bases import Base


@dataclass(frozen=True)
class Job:
    """One run of a stage.

    Attributes:
        params: only the sections that the stage table names.
        key: the subject or class; empty for stages over all.
        reads, writes: its paths by name.
        project: the machine's side of things; a stage asks it for no path and no parameter.
    """

    params: Params
    key: str
    reads: Paths
    writes: Paths
    project: Project

    @property
    def base(self) -> Base:
        return self.project.base(self.params)

    @property
    def device(self) -> torch.device:
        return self.project.device
