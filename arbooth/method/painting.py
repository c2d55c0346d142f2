"""From prompts to pictures with a base and, perhaps, a subject: what `generate` and serving call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from arbooth.method.seeds import generator
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.quantizer import Quantizer
from arbooth.model.sampling import Sampling, sample
from arbooth.model.text import Prompt
from arbooth.model.transformer import Text, Transformer


def paint(
    net: Transformer,
    autoencoder: Autoencoder,
    quantizer: Quantizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    draws: list[torch.Generator],
    identifier: Tensor | None = None,
    plain: Sequence[tuple[Prompt, Prompt]] | None = None,
) -> list[np.ndarray]:
    """Paint a picture of each prompt in one pass: [H,W,3] RGB bytes as numpy arrays.

    Each has a generator of its own (see `picture_generator`), so that a picture does not depend on what else is
    painted beside it, but for rounding: pictures that are to be the same bytes are painted in passes of one size.

    Args:
        prompts: their features, encoded.
        draws: a generator for each.
        identifier: the subject's learned rows [N,F], for prompts with the identifier.
        plain: for prompt guidance, each prompt without the identifier and its class alone; a prompt that has no
            identifier stands for both, and is not moved.

    Raises:
        ValueError: a prompt that is too long, or settings that do not fit the schedule.
    """
    text = Text.stack([prompt.with_subject(identifier).to(net.device) for prompt in prompts])
    beside = None
    if plain is not None:
        beside = Text.stack([pair[k].features.to(net.device) for k in range(2) for pair in plain])
    codes_BDHW = sample(net, quantizer, text, sampling, draws, plain=beside).codes
    with torch.inference_mode():  # decoded one by one: a decoder's memory is that of its largest maps
        return [to_uint8(autoencoder.decode(one[None]))[0].cpu().numpy() for one in codes_BDHW]


def picture_generator(seed: int, prompt: str, index: int) -> torch.Generator:
    """The random numbers of one picture: they depend on nothing else that is painted."""
    return generator(seed, "paint", prompt, index)
