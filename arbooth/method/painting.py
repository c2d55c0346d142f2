"""From prompts to pictures with a base and, perhaps, a subject: what `generate` and serving call."""

from __future__ import annotations

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
    prompt: Prompt,
    sampling: Sampling,
    draw: torch.Generator,
    identifier: Tensor | None = None,
) -> np.ndarray:
    """Paint one picture: [H,W,3] RGB bytes as a numpy array.

    Pictures are painted one at a time, each from a generator of its own (see `picture_generator`), so that
    a picture is the same whatever else is painted beside it.

    Args:
        prompt: its features, encoded.
        identifier: the subject's learned rows [N,F], for prompts with the identifier.

    Raises:
        ValueError: a prompt that is too long, or settings that do not fit the schedule.
    """
    features = prompt.with_subject(identifier)[None].to(net.device)
    text = Text(features, [features.shape[1]])
    drawn = sample(net, quantizer, text, sampling, [draw])
    with torch.inference_mode():
        return to_uint8(autoencoder.decode(drawn.codes))[0].cpu().numpy()


def picture_generator(seed: int, prompt: str, index: int) -> torch.Generator:
    """The random numbers of one picture: they depend on nothing else that is painted."""
    return generator(seed, "paint", prompt, index)
