"""From prompts to pictures with a base and, perhaps, a subject: what `generate` and serving call."""

from __future__ import annotations

import torch

from arbooth.method.seeds import generator
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.quantizer import Quantizer
from arbooth.model.sampling import Sampling, sample
from arbooth.model.text import TextEncoder
from arbooth.model.transformer import Text, Transformer


def paint(
    net: Transformer,
    autoencoder: Autoencoder,
    quantizer: Quantizer,
    encoder: TextEncoder,
    prompt: str,
    sampling: Sampling,
    seed: int,
    index: int,
    token: torch.Tensor | None = None,
):
    """Paint one picture: [H,W,3] RGB bytes as a numpy array.

    Pictures are painted one at a time, each from its own generator (seed, prompt and index), so that
    a picture is the same whatever else is painted beside it.

    Args:
        token: the subject's learned rows [N,F], for prompts with the identifier.

    Raises:
        ValueError: an empty prompt, or settings that do not fit the schedule.
    """
    features = encoder.encode(prompt).with_subject(token)[None].to(net.device)
    text = Text(features, [features.shape[1]])
    drawn = sample(net, quantizer, text, sampling, [generator(seed, "paint", prompt, index)])
    with torch.inference_mode():
        return to_uint8(autoencoder.decode(drawn.codes))[0].cpu().numpy()
