"""Put what was trained into the package, in half precision, with its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from arbooth.data.bases import FAMILIES, FORMAT, GROUND_PART
from arbooth.data.files import EMBEDDED, sha256, write_json
from arbooth.data.tensors import write_tensors
from arbooth.metrics.embedded import EmbeddedEncoders
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder
from arbooth.model.config import AutoencoderConfig, TransformerConfig
from arbooth.model.quantizer import Quantizer
from arbooth.model.schedule import Schedule
from arbooth.progress import track
from pretrain import checkpoint
from pretrain.art import CLASSES, HELD_OUT, Art
from pretrain.scenes import SCENES
from pretrain.train_encoders import labels
from pretrain.words import build_encoder, build_tokenizer, word_list
from pretrain.world import View, World

# Unlike one another in light and colour; one is dark, or a subject that was learned by day dissolves at night and in space.
GROUNDS = ("in the city", "on a wooden table", "on the beach", "on the grass", "at night")


def quantizer_of(params) -> Quantizer:
    return Quantizer(Schedule.custom(OmegaConf.to_container(params.tokenizer.maps)), params.tokenizer.bits)


def new_autoencoder(params) -> Autoencoder:
    own = params.tokenizer
    return Autoencoder(AutoencoderConfig(own.bits, own.base, tuple(own.multipliers), own.blocks, own.groups))


def load_autoencoder(params, work: Path) -> Autoencoder:
    """The trained tokenizer, rounded as it is shipped: what is trained on top fits what users get."""
    net = new_autoencoder(params)
    net.load_state_dict({k: v.half().float() for k, v in checkpoint.load(work / "tokenizer.pt")["average"].items()})
    return net.requires_grad_(False).eval()


def transformer_config(params) -> TransformerConfig:
    own = params.transformer
    return TransformerConfig(own.depth, own.width, own.heads, params.tokenizer.bits, own.text_width)


def features_of_drawings(encoders: EmbeddedEncoders, art: Art, pixels: int) -> tuple[list[str], Tensor]:
    """Every drawing's name and mean features over one picture in each scene, held-out drawings included."""
    names, features = [], []
    drawings = [d for table in (CLASSES, HELD_OUT) for own in art.drawings(table).values() for d in own]
    for number, drawing in enumerate(track(drawings, "drawings", len(drawings))):
        world = World({drawing.noun: [drawing]}, {}, pixels)
        views = [world.render(np.random.default_rng([2, number, i]), View(drawing, s)) for i, s in enumerate(SCENES)]
        drawn = torch.from_numpy(np.stack([np.asarray(v) for v in views])).permute(0, 3, 1, 2).float() / 255
        names.append(drawing.name)
        features.append(F.normalize(encoders.image_features(drawn).mean(0), dim=0))
    return names, torch.stack(features)


def draw_grounds(out: Path, pixels: int) -> dict[str, str]:
    """Empty scenes, which cut-outs are set on: parts of the base -> their files."""
    (out / "grounds").mkdir(exist_ok=True)
    files = {}
    for number, scene in enumerate(GROUNDS):
        path = out / "grounds" / f"{scene.replace(' ', '-')}.png"
        # 4: of twelve seeds the one whose sun and cloud are where no cut-out reaches.
        drawn = SCENES[scene](np.random.default_rng([4, number]), 2 * pixels)
        drawn.resize((pixels, pixels), Image.Resampling.BOX).save(path)
        files[GROUND_PART + scene] = f"grounds/{path.name}"
    return files


def pack(params, work: Path, modules: Path, out: Path = EMBEDDED) -> None:
    """Write transformer, autoencoder, text encoder, metric encoders and base.json to `out`."""
    own, config = params.transformer, transformer_config(params)
    average = checkpoint.load(work / "transformer.pt")["average"]
    public = names.public_transformer_names(config, "flat")
    net = _part(average, "transformer.")
    out.mkdir(parents=True, exist_ok=True)
    write_tensors(out / "transformer.safetensors", {p: net[ours].half() for p, ours in public.items()}, {})
    autoencoder = load_autoencoder(params, work)
    state = autoencoder.state_dict()
    public = names.public_autoencoder_names(list(state))
    write_tensors(out / "autoencoder.safetensors", {p: state[ours].half() for p, ours in public.items()}, {})
    tokenizer = build_tokenizer()
    encoder = build_encoder(tokenizer, own.text_width, own.text_layers)
    encoder.load_state_dict(_part(average, "text."))
    encoder.half().save_pretrained(out / "text")
    tokenizer.save_pretrained(out / "text")
    metric = checkpoint.load(work / "encoders.pt")["average"]
    for name in ("encoders", "judge"):
        part = {k: v.half() for k, v in _part(metric, f"{name}.").items()}
        write_tensors(out / f"{name}.safetensors", part, {})
    encoders = EmbeddedEncoders(word_list())
    encoders.load_state_dict({k: v.half().float() for k, v in _part(metric, "encoders.").items()})
    drawn, features = features_of_drawings(encoders.eval(), Art(modules), params.pixels)
    write_tensors(out / "drawings.safetensors", {"features": features}, {"names": "\n".join(drawn)})
    write_json(out / "encoders.json", {"words": word_list(), "labels": labels()})
    files = {"transformer": "transformer.safetensors", "autoencoder": "autoencoder.safetensors", "text": "text"}
    files |= draw_grounds(out, params.pixels)
    write_json(
        out / "base.json",
        {
            "format": FORMAT,
            "family": FAMILIES[0],
            "name": "embedded",
            "schedule": OmegaConf.to_container(params.tokenizer.maps),
            "transformer": config.as_dict(),
            "autoencoder": autoencoder.config.as_dict(),
            "files": {
                part: {"path": name, "bytes": _bytes(out / name), "sha256": sha256(out / name)}
                for part, name in files.items()
            },
        },
    )
    # What DVC follows: the packed files themselves belong to the package, and to git.
    write_json(work / "packed.json", {path.name: sha256(path) for path in sorted(out.iterdir())})


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
