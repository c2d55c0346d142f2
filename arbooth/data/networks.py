"""The networks of a base: transformer, tokenizer and text encoder from its files, frozen."""

from __future__ import annotations

import torch
from torch import Tensor

from arbooth.data import checkpoints
from arbooth.data.bases import Base
from arbooth.errors import InputError
from arbooth.model import names, text
from arbooth.model.autoencoder import Autoencoder
from arbooth.model.quantizer import Quantizer
from arbooth.model.text import TextEncoder
from arbooth.model.transformer import DTYPES, Transformer, kept_type


def quantizer_of(base: Base) -> Quantizer:
    """The quantiser at the picture's shape."""
    return Quantizer(base.schedule, base.autoencoder_config.bits, base.patchify)


def load_transformer(base: Base, device: torch.device | str = "cpu", compute: str = "float32") -> Transformer:
    """The frozen transformer.

    Args:
        compute: float32 or bfloat16; the blocks' matrices are kept in it, everything else in float32.

    Raises:
        InputError: the files are missing, changed or of another network.
    """
    config = base.config
    with torch.device("meta"):
        net = Transformer(config, compute)
    state = _weights(base, "transformer", names.public_transformer_names(config))
    state = {k: v.to(kept_type(k, v, compute)).to(device) for k, v in state.items()}
    return checkpoints.fill(net, state, f"transformer of base {base.name!r}")


def load_autoencoder(
    base: Base, device: torch.device | str = "cpu", compute: str = "float32", only: str = ""
) -> Autoencoder:
    """The frozen tokenizer networks.

    Args:
        compute: of the decoder; bits are made by the encoder, which is float32.
        only: `encoder` or `decoder`, where the other is not needed.

    Raises:
        InputError: as for `load_transformer`.
    """
    with torch.device("meta"):
        net = Autoencoder(base.autoencoder_config)
    state = _weights(base, "autoencoder", names.public_autoencoder_names(list(net.state_dict())))
    if only:
        net, state = net.only(only), {k: v for k, v in state.items() if k.startswith(f"{only}.")}
    state = {k: v.to(DTYPES[compute] if k.startswith("decoder.") else torch.float32) for k, v in state.items()}
    state = {k: v.to(device) for k, v in state.items()}
    net = checkpoints.fill(net, state, f"tokenizer of base {base.name!r}")
    # Convolutions of many channels are twice as fast so; the encoder's bits stay what they were.
    if only == "decoder":
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def load_text_encoder(base: Base, device: torch.device | str = "cpu") -> TextEncoder:
    """The frozen T5 encoder and its tokenizer, from a local folder.

    Raises:
        InputError: the folder is not a T5 encoder in the layout of `transformers`.
    """
    folder = base.verified("text")
    model = checkpoints.read_pretrained("T5EncoderModel", folder, dtype=torch.float32)
    tokenizer = checkpoints.read_pretrained("AutoTokenizer", folder)
    if model.config.d_model != base.config.text_width:
        raise InputError(f"{folder} is {model.config.d_model} wide, base {base.name!r} reads {base.config.text_width}")
    return TextEncoder(model.to(device), tokenizer)


def unknown_words(base: Base, prompt: str) -> list[str]:
    """Words that the base does not know, without loading more than its word list."""
    return text.unknown_words(checkpoints.read_pretrained("AutoTokenizer", base.verified("text")), prompt)


def _weights(base: Base, part: str, public: dict[str, str]) -> dict[str, Tensor]:
    path = base.verified(part)
    state = checkpoints.without_constants(checkpoints.read_weights(path))
    if part == "transformer" and any(k.startswith("blocks.") for k in state):
        public = names.public_transformer_names(base.config, "flat")
    try:
        return names.from_public(state, public)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
