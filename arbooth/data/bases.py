"""Base models: the embedded one inside the package, and imported ones known by a record.

A record (JSON) holds sizes and schedule with every file's name, bytes and SHA-256; the record travels with the
project, the files stay on the machine. `data/importing.py` makes records.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data import checkpoints
from arbooth.data.files import EMBEDDED, read_json, sha256, visible_files, whole_file
from arbooth.errors import NAME, InputError
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, AutoencoderConfig
from arbooth.model.quantizer import Quantizer
from arbooth.model.schedule import Schedule
from arbooth.model.text import TextEncoder, unknown_words
from arbooth.model.transformer import Transformer, TransformerConfig, kept_type

logger = logging.getLogger(__name__)
PARTS = ("transformer", "autoencoder", "text")
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
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

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
    def quantizer(self) -> Quantizer:
        """The quantiser at the picture's shape."""
        schedule = self.record["schedule"]
        if isinstance(schedule, list):
            maps = Schedule.custom(schedule)
        else:
            maps = Schedule.named(self.ratio, schedule if self.pixels == "default" else self.pixels)
        return Quantizer(maps, self.autoencoder_config.bits, self.patchify)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of the pictures that the quantiser's codes decode to."""
        h, w = self.quantizer.maps[-1]
        stride = self.autoencoder_config.stride
        return h * stride, w * stride

    def transformer(self, device: torch.device | str = "cpu", compute: str = "float32") -> Transformer:
        """The frozen transformer.

        Args:
            compute: float32 or bfloat16; the blocks' matrices are kept in it, everything else in float32.

        Raises:
            InputError: the files are missing, changed or of another network.
        """
        config = self.config
        with torch.device("meta"):
            net = Transformer(config, compute)
        state = self._weights("transformer", names.public_transformer_names(config))
        state = {k: v.to(kept_type(k, v, compute)).to(device) for k, v in state.items()}
        return checkpoints.fill(net, state, f"transformer of base {self.name!r}")

    def autoencoder(self, device: torch.device | str = "cpu") -> Autoencoder:
        """The frozen tokenizer networks, float32.

        Raises:
            InputError: as for `transformer`.
        """
        with torch.device("meta"):
            net = Autoencoder(self.autoencoder_config)
        state = self._weights("autoencoder", names.public_autoencoder_names(list(net.state_dict())))
        state = {k: v.float().to(device) for k, v in state.items()}
        return checkpoints.fill(net, state, f"tokenizer of base {self.name!r}")

    def text_encoder(self, device: torch.device | str = "cpu") -> TextEncoder:
        """The frozen T5 encoder and its tokenizer, from a local folder.

        Raises:
            InputError: the folder is not a T5 encoder in the layout of `transformers`.
        """
        folder = self.verified("text")
        model = checkpoints.read_pretrained("T5EncoderModel", folder, dtype=torch.float32)
        tokenizer = checkpoints.read_pretrained("AutoTokenizer", folder)
        if model.config.d_model != self.config.text_width:
            raise InputError(
                f"{folder} is {model.config.d_model} wide, base {self.name!r} reads {self.config.text_width}"
            )
        return TextEncoder(model.to(device), tokenizer)

    def unknown_words(self, prompt: str) -> list[str]:
        """Words that the base does not know, without loading more than its word list."""
        tokenizer = checkpoints.read_pretrained("AutoTokenizer", self.verified("text"))
        return unknown_words(tokenizer, prompt)

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

    def _weights(self, part: str, public: dict[str, str]) -> dict[str, Tensor]:
        path = self.verified(part)
        state = checkpoints.without_constants(checkpoints.read_weights(path))
        if part == "transformer" and any(k.startswith("blocks.") for k in state):
            public = names.public_transformer_names(self.config, "flat")
        try:
            return names.from_public(state, public)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None


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
