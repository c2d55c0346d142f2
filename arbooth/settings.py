"""This machine: where things lie and what computes. Nothing here changes a result."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from arbooth.errors import InputError


class Settings(BaseSettings):
    """Read from the environment (prefix ARBOOTH_), then from a file `.env` in the project."""

    model_config = SettingsConfigDict(env_prefix="ARBOOTH_", env_file=".env", extra="ignore")

    project: Path = Field(default_factory=Path.cwd, description="folder of params.yaml and dvc.yaml")
    weights: Path = Field(Path(".arbooth/weights"), description="folder of imported base models")
    encoders: Path = Field(Path(".arbooth/encoders"), description="folder of DINO, CLIP and LPIPS weights")
    resume: Path = Field(Path(".arbooth/resume"), description="checkpoints of unfinished fine-tuning runs")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    attention: Literal["scales", "flex"] = Field("scales", description="kernel of block-causal attention")
    checkpoint_seconds: float = Field(30.0, gt=0, description="time between resume checkpoints")
    max_pixels: int = Field(120_000_000, gt=0, description="larger photos are refused before they are decoded")

    def path(self, name: str) -> Path:
        """A folder setting, made absolute against the project."""
        return (self.project / getattr(self, name)).absolute()

    @property
    def tracking_uri(self) -> str:
        """MLFLOW_TRACKING_URI, or a database inside the project: the one place with this default."""
        import os

        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.project / '.arbooth/mlflow.db').absolute()}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        InputError: a variable has a value that does not hold.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"ARBOOTH_{str(first['loc'][0]).upper()} does not hold: {first['msg']}") from None


def without_secrets(uri: str) -> str:
    """An address without user and password, for messages."""
    return re.sub(r"//[^/@]*@", "//", uri)


def torch_device(name: str | None = None):
    """The device that computes.

    Raises:
        InputError: CUDA is asked for and not there.
    """
    import torch

    name = name or settings().device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"ARBOOTH_DEVICE is {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"ARBOOTH_DEVICE is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices: set it to cpu or auto"
        )
    return device
