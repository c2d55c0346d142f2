"""The class prior: token maps drawn from the frozen network, with what it thought of every bit.

Shape suffixes: N samples, L tokens, P bits of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from arbooth.method.seeds import generator
from arbooth.model.quantizer import Quantizer
from arbooth.model.sampling import Sampling, sample
from arbooth.model.transformer import Text, Transformer


@dataclass
class ClassPrior:
    """Cached samples of a class.

    Attributes:
        bits: [N,L,P] bool.
        margins: [N,L,P] float16, the teacher's logit difference of every bit (bit 1 less bit 0), from
            the pass that drew it; it holds the whole two-way distribution.
        zeros: [N,L,P] float16, the teacher's logit of bit 0, kept only for the joint distillation.
        features: [T,F], text features of the class prompt.
    """

    bits: Tensor
    margins: Tensor
    zeros: Tensor | None
    features: Tensor


def draw_prior(
    net: Transformer,
    quantizer: Quantizer,
    features_TF: Tensor,
    samples: int,
    sampling: Sampling,
    seed: int,
    *,
    keep_pairs: bool = False,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> ClassPrior:
    """Draw class samples one at a time, each with a generator of its own.

    The teacher is asked without guidance, and its distributions are kept before the temperature:
    temperature, top-k and top-p shape which maps are drawn, not what is distilled.

    Args:
        features_TF: text features of the class prompt.
        sampling: how maps are drawn.
        keep_pairs: keep both logits of every bit, at twice the size.
        progress: wraps the range of samples.
    """
    bits, margins, zeros = [], [], []
    text = Text(features_TF[None].to(net.device), [len(features_TF)])
    for index in progress(range(samples)):
        drawn = sample(net, quantizer, text, sampling, [generator(seed, "prior", index)], keep_logits=True)
        zero, one = cast(Tensor, drawn.logits).unbind(-1)
        bits.append(drawn.bits.cpu())
        margins.append((one - zero).half().cpu())
        zeros.append(zero.half().cpu())
    return ClassPrior(torch.cat(bits), torch.cat(margins), torch.cat(zeros) if keep_pairs else None, features_TF.cpu())
