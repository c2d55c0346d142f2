"""This machine: where things lie and what computes. Nothing here changes a result."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from arbooth.errors import InputError

if TYPE_CHECKING:
    import torch


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~nobody
        raise ValueError(str(error)) from None


Folder = Annotated[Path, AfterValidator(_expanded)]


class Settings(BaseSettings):
    """Read from the environment (prefix ARBOOTH_), then from a file `.env` in the project; empty is not set.

    docs/settings.md explains each. Relative folders start at the project.
    """

    model_config = SettingsConfigDict(env_prefix="ARBOOTH_", extra="ignore", env_ignore_empty=True)

    weights: Folder = Field(Path(".arbooth/weights"), description="folder of imported base models")
    encoders: Folder = Field(Path(".arbooth/encoders"), description="folder of DINO, CLIP and LPIPS weights")
    resume: Folder = Field(Path(".arbooth/resume"), description="checkpoints of unfinished fine-tuning runs")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    attention: Literal["scales", "flex"] = Field("scales", description="kernel of block-causal attention")
    compile: bool = Field(False, description="torch.compile of the blocks in fine-tuning: minutes at first, then faster")
    checkpoint_seconds: float = Field(30.0, gt=0, description="time between resume checkpoints")
    max_pixels: int = Field(120_000_000, gt=0, description="larger photos are refused before they are decoded")
    tracking_uri: str = Field(
        "", validation_alias="MLFLOW_TRACKING_URI", description="MLflow's address [a database in the project]"
    )

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """The settings that hold in a project's folder.

        Raises:
            InputError: a variable has an invalid value.
        """
        try:
            return cls(_env_file=folder / ".env")  # type: ignore[call-arg]
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).upper()
            name = name if name.startswith("MLFLOW_") else f"ARBOOTH_{name.removeprefix('ARBOOTH_')}"
            raise InputError(f"{name} is invalid: {first['msg']}") from None
        except (UnicodeDecodeError, OSError) as error:
            raise InputError(f"{folder / '.env'} is not readable as text ({error}): write NAME=value lines") from None


def without_secrets(text: str) -> str:
    """Text with every address in it reduced to scheme, host and path: no user, password or query."""
    text = re.sub(r"([A-Za-z][\w+.-]*)://(\S*)", lambda found: f"{found[1]}://{_public(found[1], found[2])}", text)
    return re.sub(r"\?[^\s=?]+=\S*", "", text)  # the tail of an address that a library has taken apart


def has_secret(uri: str) -> bool:
    """Whether an address says more than where something is."""
    return without_secrets(uri) != uri


def _public(scheme: str, rest: str) -> str:
    """What follows `://`, without credentials in whatever form: a password may itself hold @, / or ?."""
    if scheme.partition("+")[0] not in ("sqlite", "file"):
        rest = rest.rpartition("@")[2]
    return re.split(r"[?#]", rest)[0]


def torch_device(name: str = "auto") -> torch.device:
    """The device that computes.

    Raises:
        InputError: no such device, or CUDA is asked for and not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise InputError(f"ARBOOTH_DEVICE is {name!r}: use auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"ARBOOTH_DEVICE is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices: set it to cpu or auto"
        )
    return device


def device_memory(device: torch.device) -> int:
    """Bytes of a device, or of this machine where the CPU computes."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
