"""Official files of a base, checked against each other and recorded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data import checkpoints
from arbooth.data.bases import FAMILIES, FORMAT, Base, all_files, load_base, remembered_hash
from arbooth.data.files import read_json, write_json
from arbooth.errors import InputError, checked_name
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.transformer import Transformer

# Where a network adds its level embedding, which no tensor tells: before the first block, as released, or before every
# chunk of blocks, as the published ARBooth code trains.
LEVEL_EMBEDDINGS = ("first-block", "every-chunk")


def import_base(
    folder: Path,
    name: str,
    records: Path,
    weights: Path,
    text: Path | None = None,
    level_embedding: str = LEVEL_EMBEDDINGS[0],
) -> Base:
    """Record the official files of a folder as base `name` and link them under `weights`.

    Args:
        records: where the record goes.
        folder: holds the transformer (a file, or a folder of shards), the tokenizer (`*vae*`) and
            the T5 folder, each found by its content's shape.
        text: the T5 folder, where it lies elsewhere.
        level_embedding: one of `LEVEL_EMBEDDINGS`.

    Raises:
        InputError: a part is missing, ambiguous, broken, or does not fit the others.
    """
    if level_embedding not in LEVEL_EMBEDDINGS:
        raise InputError(f"--level-embedding is {level_embedding!r}: write {' or '.join(LEVEL_EMBEDDINGS)}")
    if checked_name(name, "a base") == "embedded":
        raise InputError("a base can't be named 'embedded': that is the one inside the package")
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one with the transformer, tokenizer and T5 files")
    paths = _find_parts(folder, text)
    state = checkpoints.without_constants(checkpoints.read_weights(paths["transformer"]))
    config, style = transformer_config(state, paths["transformer"])
    config = replace(config, level_embedding_first_only=level_embedding == LEVEL_EMBEDDINGS[0])
    _check_fit(state, names.public_transformer_names(config, style), Transformer, config, paths["transformer"])
    vae = checkpoints.without_constants(checkpoints.read_weights(paths["autoencoder"]))
    vae_config = autoencoder_config(vae, paths["autoencoder"])
    with torch.device("meta"):
        vae_names = names.public_autoencoder_names(list(Autoencoder(vae_config).state_dict()))
    _check_fit(vae, vae_names, Autoencoder, vae_config, paths["autoencoder"])
    if config.bits not in (vae_config.bits, 4 * vae_config.bits):
        raise InputError(
            f"the transformer reads {config.bits} bits a token and the tokenizer makes {vae_config.bits}: "
            "these files do not belong together"
        )
    _check_t5(paths["text"], config.text_width)
    # Whole and readable: what a file lacks would be drawn at random, anew at every run.
    checkpoints.read_pretrained("T5EncoderModel", paths["text"], dtype=torch.bfloat16)
    hashes = {part: remembered_hash(path.resolve()) for part, path in paths.items()}
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
    record = {
        "format": FORMAT,
        "family": FAMILIES[0],
        "name": name,
        "schedule": "1M",
        "transformer": config.as_dict(),
        "autoencoder": vae_config.as_dict(),
        "files": files,
    }
    write_json(records / f"{name}.json", record)
    return load_base(name, records, weights)


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
        found = read_json(folder / "config.json").get("d_model")
    except ValueError:
        raise InputError(f"{folder / 'config.json'} is not readable as JSON: copy it again") from None
    if found != width:
        raise InputError(f"{folder} is {found} wide, the transformer reads {width}: these files do not belong together")


def _is_t5(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and '"t5"' in config.read_text(encoding="utf-8", errors="replace")


def _check_fit(state: dict[str, Tensor], public: dict[str, str], kind, config, path: Path) -> None:
    with torch.device("meta"):
        needed = kind(config).state_dict()
    try:
        renamed = names.from_public(state, public)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    wrong = [k for k, v in renamed.items() if v.shape != needed[k].shape]
    if wrong:
        k = wrong[0]
        raise InputError(
            f"{path}: {k} is {tuple(renamed[k].shape)}, where its other sizes ask for {tuple(needed[k].shape)}"
        )


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in all_files(path))


def transformer_config(state: dict[str, Tensor], where: Path) -> tuple[TransformerConfig, str]:
    """Sizes of a public transformer file, read off its shapes; and how its blocks are named.

    Raises:
        InputError: a tensor that tells a size is not there.
    """
    flat = [int(m[1]) for k in state if (m := re.match(r"blocks\.(\d+)\.", k))]
    chunked = {(int(m[1]), int(m[2])) for k in state if (m := re.match(r"block_chunks\.(\d+)\.module\.(\d+)\.", k))}
    first = "blocks.0" if flat else "block_chunks.0.module.0"
    try:
        width, bits = state["word_embed.weight"].shape
        config = TransformerConfig(
            depth=max(flat) + 1 if flat else len(chunked),
            width=width,
            heads=state[f"{first}.sa.scale_mul_1H11"].shape[1],
            bits=bits,
            text_width=state["cfg_uncond"].shape[1],
            chunks=1 if flat else max(chunk for chunk, _ in chunked) + 1,
            mlp_ratio=state[f"{first}.ffn.fc1.weight"].shape[0] / width,
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{where} is not an Infinity transformer: {error} does not fit") from None
    return config, "flat" if flat else "chunks"


def autoencoder_config(state: dict[str, Tensor], where: Path) -> AutoencoderConfig:
    """Sizes of a public tokenizer file, read off its shapes.

    Raises:
        InputError: a tensor that tells a size is not there.
    """
    try:
        base = state["encoder.conv_in.conv.weight"].shape[0]
        levels = 1 + max(int(m[1]) for k in state if (m := re.match(r"encoder\.down\.(\d+)\.", k)))
        blocks = 1 + max(int(m[1]) for k in state if (m := re.match(r"encoder\.down\.0\.block\.(\d+)\.", k)))
        widths = [state[f"encoder.down.{i}.block.0.conv1.conv.weight"].shape[0] for i in range(levels)]
        bits = state["encoder.conv_out.conv.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise InputError(f"{where} is not an Infinity tokenizer: {error} does not fit") from None
    return AutoencoderConfig(bits, base, tuple(w // base for w in widths), blocks)
