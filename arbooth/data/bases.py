"""Base models: the embedded one inside the package, and imported ones known by a record.

A record (JSON) holds sizes and schedule with every file's name, bytes and SHA-256; the record travels with the
project, the files stay on the machine. `data/importing.py` makes records, `data/networks.py` loads what they name.
Nothing here needs torch, which takes a second and a half to import.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from arbooth.data.files import EMBEDDED, read_json, sha256, visible_files, whole_file
from arbooth.errors import NAME, InputError
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.schedule import Schedule

logger = logging.getLogger(__name__)
PARTS = ("transformer", "autoencoder", "text")
# A picture of an empty scene is a part by this and what prompts call it, say "ground on the beach".
GROUND_PART = "ground "
# Format of a record, and the families of networks that this code knows.
FORMAT = 2
FAMILIES = ("infinity",)


@dataclass(frozen=True)
class Base:
    """A base model that is known but not loaded.

    Attributes:
        name: as in params.yaml.
        record: the parsed record.
        folder: where the files lie on this machine.
        ratio, pixels: the picture's shape, as in params.yaml.

    Raises:
        InputError: a base with one schedule of its own is asked for another.
    """

    name: str
    record: dict
    folder: Path
    ratio: float = 1.0
    pixels: str = "default"

    def __post_init__(self) -> None:
        if isinstance(self.record["schedule"], list) and (self.pixels != "default" or self.ratio != 1.0):
            raise InputError(f"base {self.name!r} has one schedule: set picture.ratio to 1.0 and pixels to default")

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the parts' hashes: which network an adapter or cache was made with."""
        parts = [self.record["files"][part]["sha256"] for part in PARTS]
        if not self.config.level_embedding_first_only:  # another network, of the same files
            parts.append("level embedding before every chunk")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def content(self) -> str:
        """SHA-256 over every file that was recorded: the parts, and what is put behind cut-outs."""
        files = sorted((part, entry["sha256"]) for part, entry in self.record["files"].items())
        return hashlib.sha256(json.dumps([self.hash, files]).encode()).hexdigest()

    @property
    def grounds(self) -> list[str]:
        """Scenes of the base's world without anything in them, by what prompts call them; most bases have none."""
        return [part.removeprefix(GROUND_PART) for part in self.record["files"] if part.startswith(GROUND_PART)]

    @property
    def config(self) -> TransformerConfig:
        return TransformerConfig(**self.record["transformer"])

    @property
    def autoencoder_config(self) -> AutoencoderConfig:
        return AutoencoderConfig(**self.record["autoencoder"])

    @property
    def patchify(self) -> bool:
        return self.config.bits == 4 * self.autoencoder_config.bits

    @cached_property
    def schedule(self) -> Schedule:
        """The token maps at the picture's shape."""
        schedule = self.record["schedule"]
        if isinstance(schedule, list):
            return Schedule.custom(schedule)
        return Schedule.named(self.ratio, schedule if self.pixels == "default" else self.pixels)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of the pictures that the quantiser's codes decode to."""
        h, w = self.schedule.last
        stride = self.autoencoder_config.stride * (2 if self.patchify else 1)
        return h * stride, w * stride

    def verified(self, part: str) -> Path:
        """Path of a part whose content is as recorded; hashes are remembered until a file changes.

        Raises:
            InputError: the part is not there, or is not what was recorded.
        """
        entry = self.record["files"][part]
        path = (self.folder / entry["path"]).resolve()
        if not path.exists():
            raise InputError(
                f"base {self.name!r} needs {path}, which is not on this machine: "
                f"run `arbooth base import PATH --name {self.name}` or set ARBOOTH_WEIGHTS"
            )
        if remembered_hash(path) != entry["sha256"]:
            raise InputError(f"{path} is not the file that base {self.name!r} was recorded with: import it again")
        return path


def load_base(
    name: str, records: Path | None = None, weights: Path | None = None, ratio: float = 1.0, pixels: str = "default"
) -> Base:
    """Find a base by its name in params.yaml.

    Args:
        records: folder of the records of imported bases.
        weights: folder of their files on this machine.
        ratio, pixels: the picture's shape.

    Raises:
        InputError: no record of that name, or one that this version can't read; no such shape.
    """
    if name == "embedded":
        return Base(name, read_json(EMBEDDED / "base.json"), EMBEDDED, ratio, pixels)
    path = None if records is None or not NAME.fullmatch(name) else records / f"{name}.json"
    if path is None or weights is None or not path.is_file():
        raise InputError(f"no base {name!r}: import one with `arbooth base import PATH --name {name}`")
    return Base(name, read_record(path), weights / name, ratio, pixels)


def read_record(path: Path) -> dict:
    """A base's record; records of before formats were numbered hold the same and more.

    Raises:
        InputError: it is of a newer format or another family, or lacks what a record has.
    """
    try:
        record = read_json(path)
        if record.get("format", 1) > FORMAT or record.get("family", FAMILIES[0]) not in FAMILIES:
            raise InputError(
                f"{path} is a record of format {record.get('format')}, family {record.get('family')!r}, which this "
                "version can't read: update arbooth, or import the base again"
            )
        TransformerConfig(**record["transformer"])
        AutoencoderConfig(**record["autoencoder"])
        if not all(isinstance(record["files"][part]["sha256"], str) for part in PARTS) or not record["schedule"]:
            raise ValueError("a hash or the schedule is missing")
        return record
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a record of a base ({error}): import it again") from None


_HASHES: dict[str, str] = {}


def remembered_hash(path: Path) -> str:
    """SHA-256 of a file or folder; large ones are remembered beside the user's other caches."""
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in all_files(path)]
    key = hashlib.sha256(json.dumps(stats).encode()).hexdigest()
    if key in _HASHES:
        return _HASHES[key]
    cache = Path.home() / ".cache" / "arbooth" / "hashes"
    large = sum(size for _, size, _ in stats) > 256 * 2**20
    if large and (cache / key).is_file():
        return (cache / key).read_text().strip()
    if large:
        logger.info("hashing %s (%.1f GB), once", path.name, sum(size for _, size, _ in stats) / 1e9)
    _HASHES[key] = sha256(path)
    if large:
        with contextlib.suppress(OSError), whole_file(cache / key) as part:
            part.write_text(_HASHES[key])
    return _HASHES[key]


def all_files(path: Path) -> list[Path]:
    return visible_files(path) if path.is_dir() else [path]
