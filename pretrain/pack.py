"""Put what was trained into the package, in half precision, with its record."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf
from torch import Tensor

from arbooth.data.bases import EMBEDDED
from arbooth.data.caches import write_tensors
from arbooth.data.files import sha256, write_json
from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, AutoencoderConfig
from arbooth.model.quantizer import Quantizer
from arbooth.model.schedule import Schedule
from arbooth.model.transformer import TransformerConfig
from pretrain import checkpoint
from pretrain.words import build_encoder, build_tokenizer, word_list


def quantizer_of(params) -> Quantizer:
    return Quantizer(Schedule.custom(OmegaConf.to_container(params.tokenizer.maps)), params.tokenizer.bits)


def load_autoencoder(params, work: Path, refined: bool = True) -> Autoencoder:
    """The trained tokenizer; its decoder is the refined one where there is one."""
    own = params.tokenizer
    net = Autoencoder(AutoencoderConfig(own.bits, own.base, tuple(own.multipliers), own.blocks))
    # Rounded as it will be shipped, so that what is trained on top fits what users get.
    net.load_state_dict({k: v.half().float() for k, v in checkpoint.load(work / "tokenizer.pt")["average"].items()})
    state = checkpoint.load(work / "decoder.pt") if refined else None
    if state:
        net.decoder.load_state_dict(state["average"])
    return net.requires_grad_(False).eval()


def pack(params, work: Path, out: Path = EMBEDDED) -> None:
    """Write transformer, autoencoder, text encoder, metric encoders and base.json to `out`."""
    own = params.transformer
    config = TransformerConfig(own.depth, own.width, own.heads, params.tokenizer.bits, own.text_width)
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
    metric = checkpoint.load(work / "encoders.pt")
    write_tensors(out / "encoders.safetensors", {k: v.half() for k, v in metric["net"].items()}, {})
    write_json(out / "encoders.json", {"words": word_list()})
    files = {"transformer": "transformer.safetensors", "autoencoder": "autoencoder.safetensors", "text": "text"}
    write_json(
        out / "base.json",
        {
            "name": "embedded",
            "schedule": OmegaConf.to_container(params.tokenizer.maps),
            "transformer": config.as_dict(),
            "autoencoder": autoencoder.config.as_dict(),
            "sampling": OmegaConf.to_container(params.sampling),
            "files": {
                part: {"path": name, "bytes": _bytes(out / name), "sha256": sha256(out / name)}
                for part, name in files.items()
            },
        },
    )


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
