"""Weights from disk without running code from them and without a second copy in memory."""

from __future__ import annotations

import pickle
import re
import threading
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from arbooth.data.files import read_json
from arbooth.errors import InputError
from arbooth.model.names import is_constant

# Where checkpoints hide the network: training checkpoints of the release, tokenizer files, common wrappers.
NESTED = (("trainer", "gpt_fsdp"), ("gpt_fsdp",), ("vae",), ("state_dict",), ("model",))
_LOADING = threading.Lock()
Net = TypeVar("Net", bound=nn.Module)
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth, .pt, .bin or .safetensors file, or of a sharded folder with an index.

    Files are memory-mapped; nothing in them is executed.

    Raises:
        InputError: missing, truncated, of another format, or holding no tensors.
    """
    if path.is_dir():
        return _read_shards(path)
    if not path.is_file():
        raise InputError(f"no weights at {path}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for keys in NESTED:
        inner: Any = state
        for key in keys:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            state = inner
            break
    named = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    tensors = {re.sub(r"^(module|_orig_mod)\.", "", k): v for k, v in named.items()}
    if not tensors:
        raise InputError(f"{path} holds no tensors that are known here: is it a weights file of Infinity?")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): copy it again") from None


def _read_pickle(path: Path) -> dict:
    try:
        # Files from before torch 1.6 are not zip archives and can't be mapped.
        archive = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", mmap=archive, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds more than weights and is not opened ({reason})") from None
    except Exception as error:  # a damaged archive has another exception for every place of the damage
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is truncated or not a torch weights file ({reason}): copy it again") from None
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a dictionary of weights")
    return state


def _read_shards(folder: Path) -> dict[str, Tensor]:
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    if index is None:
        found = sorted(folder.glob("*.index.json"))
        if not found:
            raise InputError(f"{folder} has no index of shards ({' or '.join(INDEXES)})")
        index = found[0]
    try:
        weight_map = read_json(index)["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is not an index of shards: copy it again") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index} points outside its folder: {name}")
        tensors.update(read_weights(folder / name))
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} tensors of its index ({', '.join(missing[:3])}, ...)")
    return tensors


def fill(module: Net, state: dict[str, Tensor], what: str) -> Net:
    """Give a module on the meta device its weights, frozen, without copying them.

    Raises:
        InputError: a key is missing or unknown, or a shape does not fit.
    """
    needed = module.state_dict()
    odd = sorted(set(needed) ^ set(state))
    if odd:
        raise InputError(f"{what}: {len(odd)} missing or unknown keys ({', '.join(odd[:3])})")
    wrong = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(needed[k].shape)}"
        for k in needed
        if needed[k].shape != state[k].shape
    ]
    if wrong:
        raise InputError(f"{what}: {len(wrong)} shapes do not fit ({'; '.join(wrong[:3])})")
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


def without_constants(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop buffers that carry no information, and an optional discriminator or EMA beside the network."""
    return {k: v for k, v in state.items() if not is_constant(k) and not k.startswith(("discriminator.", "loss."))}


def read_pretrained(kind: str, where: Path | str, unused: tuple[str, ...] = (), **options):
    """A network or tokenizer in the layout of `transformers`, from this machine alone.

    Args:
        kind: its class in `transformers`, say "T5EncoderModel".
        where: a folder, or a name in the hub's cache.
        unused: beginnings of names of weights that may be missing.

    Raises:
        InputError: it is not there, broken, or lacks weights, which would be drawn at random.
    """
    # The library imports lazily and changes global state while it loads: one thread at a time.
    with _LOADING:
        import transformers
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error

        disable_progress_bar(), set_verbosity_error()  # what is missing is told below, in one sentence
        if not kind.endswith("Tokenizer"):
            options["output_loading_info"] = True
        try:
            found = getattr(transformers, kind).from_pretrained(where, local_files_only=True, **options)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{where} is not a {kind} that can be read ({str(error).splitlines()[0]})") from None
    if kind.endswith("Tokenizer"):
        return found
    model, report = found
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if missing:
        raise InputError(f"{where} lacks {len(missing)} weights of a {kind} ({', '.join(missing[:3])}): copy it again")
    return model
