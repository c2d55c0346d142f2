"""Base models: the embedded one inside the package, and imported ones known by a record.

A record (JSON) holds sizes, schedule and sampling defaults with every file's name, bytes and SHA-256;
the record travels with the project, the files stay on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data import checkpoints
from arbooth.data.files import read_json, sha256, visible_files, whole_file, write_json
from arbooth.errors import NAME, InputError
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, AutoencoderConfig
from arbooth.model.quantizer import Quantizer
from arbooth.model.schedule import Schedule
from arbooth.model.text import TextEncoder
from arbooth.model.transformer import DTYPES, Transformer, TransformerConfig

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
PARTS = ("transformer", "autoencoder", "text")
# The released networks, to check names and shapes against without their weights.
RELEASED = {
    "infinity-125m": TransformerConfig(12, 768, 8, 16, 2048, chunks=4),
    "infinity-2b": TransformerConfig(32, 2048, 16, 32, 2048, chunks=8),
    "infinity-8b": TransformerConfig(40, 3584, 28, 56, 2048, chunks=8),
}


@dataclass(frozen=True)
class Base:
    """A base model that is known but not loaded.

    Attributes:
        name: as in params.yaml.
        record: the parsed record.
        folder: where the files lie on this machine.
    """

    name: str
    record: dict
    folder: Path

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

    def quantizer(self, ratio: float = 1.0, pixels: str = "default") -> Quantizer:
        """The quantiser of this base at a height/width ratio and pixel count.

        Raises:
            InputError: a base with one schedule of its own is asked for another.
        """
        own = self.record["schedule"]
        if isinstance(own, list):
            if pixels != "default" or ratio != 1.0:
                raise InputError(f"base {self.name!r} has one schedule: set picture.ratio to 1.0 and pixels to default")
            schedule = Schedule.custom(own)
        else:
            schedule = Schedule.named(ratio, own if pixels == "default" else pixels)
        return Quantizer(schedule, self.autoencoder_config.bits, self.patchify)

    def picture_size(self, quantizer: Quantizer) -> tuple[int, int]:
        """Height and width in pixels of the pictures that a quantiser's codes decode to."""
        h, w = quantizer.maps[-1]
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
        from transformers import AutoTokenizer, T5EncoderModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = self.verified("text")
        try:
            model = T5EncoderModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} is not a T5 encoder folder ({str(error).splitlines()[0]})") from None
        if model.config.d_model != self.config.text_width:
            raise InputError(
                f"{folder} is {model.config.d_model} wide, base {self.name!r} reads {self.config.text_width}"
            )
        return TextEncoder(model.to(device), tokenizer)

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
        if _remembered_hash(path) != entry["sha256"]:
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


def kept_type(name: str, tensor: Tensor, compute: str) -> torch.dtype:
    """Matrices inside the blocks take the compute type; biases, norms, embeddings, adaLN and head stay float32."""
    return DTYPES[compute] if name.startswith("blocks.") and tensor.ndim == 2 else torch.float32


def load_base(name: str, project: Path, weights: Path) -> Base:
    """Find a base by its name in params.yaml.

    Raises:
        InputError: no record of that name.
    """
    if name == "embedded":
        return Base(name, read_json(EMBEDDED / "base.json"), EMBEDDED)
    path = project / "bases" / f"{name}.json"
    if not NAME.fullmatch(name) or not path.is_file():
        raise InputError(f"no base {name!r}: import one with `arbooth base import PATH --name {name}`")
    try:
        record = read_json(path)
        TransformerConfig(**record["transformer"])
        return Base(name, record, weights / name)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a record of a base ({error}): import it again") from None


def import_base(folder: Path, name: str, project: Path, weights: Path, text: Path | None = None) -> Base:
    """Record the official files of a folder as base `name` and link them under `weights`.

    Args:
        folder: holds the transformer (a file, or a folder of shards), the tokenizer (`*vae*`) and
            the T5 folder, each found by its content's shape.
        text: the T5 folder, where it lies elsewhere.

    Raises:
        InputError: a part is missing, ambiguous, broken, or does not fit the others.
    """
    if not NAME.fullmatch(name) or name == "embedded":
        raise InputError(f"a base can't be named {name!r}: use a-z, 0-9, _ and -, and not `embedded`")
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one with the transformer, tokenizer and T5 files")
    paths = _find_parts(folder, text)
    state = checkpoints.without_constants(checkpoints.read_weights(paths["transformer"]))
    config, style = checkpoints.transformer_config(state, paths["transformer"])
    _check_fit(state, names.public_transformer_names(config, style), Transformer, config, paths["transformer"])
    vae = checkpoints.without_constants(checkpoints.read_weights(paths["autoencoder"]))
    vae_config = checkpoints.autoencoder_config(vae, paths["autoencoder"])
    with torch.device("meta"):
        vae_names = names.public_autoencoder_names(list(Autoencoder(vae_config).state_dict()))
    _check_fit(vae, vae_names, Autoencoder, vae_config, paths["autoencoder"])
    if config.bits not in (vae_config.bits, 4 * vae_config.bits):
        raise InputError(
            f"the transformer reads {config.bits} bits a token and the tokenizer makes {vae_config.bits}: "
            "these files do not belong together"
        )
    _check_t5(paths["text"], config.text_width)
    hashes = {part: _remembered_hash(path.resolve()) for part, path in paths.items()}
    files = {}
    for part, path in paths.items():
        link = weights / name / f"{part}{'' if path.is_dir() else path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(path.resolve(), target_is_directory=path.is_dir())
        elif not link.samefile(path):
            raise InputError(f"{link} is in the way: move it, or choose another name")
        files[part] = {"path": link.name, "bytes": _bytes(path), "sha256": hashes[part]}
    eight_billion = config.bits == 4 * vae_config.bits
    record = {
        "name": name,
        "schedule": "1M",
        "transformer": config.as_dict(),
        "autoencoder": vae_config.as_dict(),
        "sampling": {"guidance": 3.0 if eight_billion else 4.0, "temperature": 1.0 if eight_billion else 0.5},
        "files": files,
    }
    write_json(project / "bases" / f"{name}.json", record)
    return load_base(name, project, weights)


def _find_parts(folder: Path, text: Path | None) -> dict[str, Path]:
    entries = sorted(folder.iterdir())
    files = [p for p in entries if p.suffix in (".pth", ".pt", ".bin", ".safetensors")]
    folders = [p for p in entries if p.is_dir()]
    shards = [p for p in folders if any(p.glob("*.index.json")) and not _is_t5(p)]
    encoders = [text] if text else [p for p in folders if _is_t5(p)]
    found = {
        "transformer": [p for p in files if "vae" not in p.name.lower()] + shards,
        "autoencoder": [p for p in files if "vae" in p.name.lower()],
        "text": encoders,
    }
    wanted = {
        "transformer": "a transformer (infinity_*.pth or a folder of shards)",
        "autoencoder": "a tokenizer (a file with `vae` in its name)",
        "text": "a T5 folder (config.json beside its weights; or --text)",
    }
    for part, paths in found.items():
        if len(paths) != 1:
            names_ = ", ".join(p.name for p in paths)
            raise InputError(
                f"{folder} must hold one of {wanted[part]}; it holds {len(paths)}{': ' + names_ if names_ else ''}"
            )
    return {part: paths[0].absolute() for part, paths in found.items()}


def _check_t5(folder: Path, width: int) -> None:
    if not folder.is_dir() or not _is_t5(folder):
        raise InputError(
            f"{folder} is not a T5 folder in the layout of `transformers` (config.json beside its weights)"
        )
    try:
        own = read_json(folder / "config.json").get("d_model")
    except ValueError:
        raise InputError(f"{folder / 'config.json'} is not readable as JSON: copy it again") from None
    if own != width:
        raise InputError(f"{folder} is {own} wide, the transformer reads {width}: these files do not belong together")


def _is_t5(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and '"t5"' in config.read_text(encoding="utf-8", errors="replace")


def _check_fit(state: dict[str, Tensor], public: dict[str, str], kind, config, path: Path) -> None:
    with torch.device("meta"):
        own = kind(config).state_dict()
    try:
        renamed = names.from_public(state, public)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    wrong = [k for k, v in renamed.items() if v.shape != own[k].shape]
    if wrong:
        k = wrong[0]
        raise InputError(
            f"{path}: {k} is {tuple(renamed[k].shape)}, where its other sizes ask for {tuple(own[k].shape)}"
        )


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in _all_files(path))


_HASHES: dict[str, str] = {}


def _remembered_hash(path: Path) -> str:
    """SHA-256 of a file or folder; large ones are remembered beside the user's other caches."""
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in _all_files(path)]
    key = hashlib.sha256(json.dumps(stats).encode()).hexdigest()
    if key in _HASHES:
        return _HASHES[key]
    cache = Path.home() / ".cache" / "arbooth" / "hashes"
    large = sum(size for _, size, _ in stats) > 256 * 2**20
    if large and (cache / key).is_file():
        return (cache / key).read_text().strip()
    if large:
        print(f"hashing {path.name} ({sum(size for _, size, _ in stats) / 1e9:.1f} GB), once", file=sys.stderr)
    _HASHES[key] = sha256(path)
    if large:
        with contextlib.suppress(OSError), whole_file(cache / key) as part:
            part.write_text(_HASHES[key])
    return _HASHES[key]


def _all_files(path: Path) -> list[Path]:
    return visible_files(path) if path.is_dir() else [path]
