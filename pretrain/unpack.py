"""The packed base as resume files, to train it further, with more scales and blocks where params.yaml asks for them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from arbooth.data.bases import load_base
from arbooth.data.networks import load_autoencoder, load_text_encoder, load_transformer
from arbooth.model.schedule import Schedule
from pretrain import checkpoint
from pretrain.pack import quantizer_of, transformer_config
from pretrain.train_transformer import new_networks


def unpack(params, work: Path) -> None:
    """Write `tokenizer.pt` and `transformer.pt`; what the packed base lacks starts without an effect."""
    base = load_base("embedded")
    save(work / "tokenizer.pt", load_autoencoder(base).state_dict())
    both = new_networks(transformer_config(params), params.transformer.text_layers, params.seed).state_dict()
    silence(both, base.config.depth)
    both |= {f"text.{k}": v for k, v in load_text_encoder(base).model.float().state_dict().items()}
    both |= {f"transformer.{k}": v for k, v in load_transformer(base).state_dict().items()}
    level = both["transformer.level.weight"]
    both["transformer.level.weight"] = levels(level, base.schedule, quantizer_of(params).schedule)
    save(work / "transformer.pt", both)


def silence(state: dict[str, Tensor], first: int) -> None:
    """Blocks from `first` on add nothing to the stream: their last matrices are zero."""
    for name, value in state.items():
        parts = name.split(".")
        if parts[:2] == ["transformer", "blocks"] and int(parts[2]) >= first and parts[-2] in ("output", "contract"):
            value.zero_()


def levels(rows: Tensor, before: Schedule, after: Schedule) -> Tensor:
    """Level embeddings [15,C] of another schedule: every map takes that of the map nearest in size."""
    rows = rows.clone()
    near = [min(range(len(before)), key=lambda k: abs(before.maps[k][0] - side)) for side, _ in after.maps]
    rows[: len(after)] = rows[near]
    return rows


def save(path: Path, state: dict[str, Tensor]) -> None:
    state = {k: v.detach().clone() for k, v in state.items()}
    checkpoint.save(path, net=state, optimizers=[], average=state, step=0)
