"""What a subject and its class look like while the subject is being learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arbooth.data.bases import Base
from arbooth.data.files import whole_file
from arbooth.data.networks import load_autoencoder, load_text_encoder, quantizer_of
from arbooth.method.prompts import with_class
from arbooth.model.sampling import Sampling
from arbooth.model.transformer import Transformer

if TYPE_CHECKING:
    from arbooth.params import Params

# Of each prompt. They tell whether to go on, no more: what is judged is painted by the stage `generate`.
PICTURES, GUIDANCE = 2, 3.0


class Samples:
    """A row of pictures every so many steps; painting changes nothing of what is learned.

    Attributes:
        sheets: step -> pictures [2*PICTURES,H,W,3] bytes, those of the subject first.
    """

    def __init__(self, net: Transformer, base: Base, params: Params, key: str) -> None:
        self.net, self.base, self.every, self.seed = net, base, params.finetune.sample_every, params.seed
        self.sheets: dict[int, Tensor] = {}
        if not self.every:
            return
        drawn, noun = params.prior, params.noun(key)
        self.sampling = Sampling(GUIDANCE, drawn.temperature, drawn.top_k, drawn.top_p)
        self.prompts = [with_class(params.template(key), noun), with_class(params.templates.prior, noun)]
        self.autoencoder = load_autoencoder(base, net.device, params.compute, only="decoder")
        encoder = load_text_encoder(base)
        with encoder.on(net.device):
            self.texts = [encoder.encode(prompt) for prompt in self.prompts for _ in range(PICTURES)]

    def __call__(self, step: int, identifier: Tensor) -> None:
        """Paint if this step is one of those."""
        if not self.every or step % self.every:
            return
        from arbooth.method.painting import paint, picture_generator  # where none are asked for, it is not there

        draws = [picture_generator(self.seed, prompt, index) for prompt in self.prompts for index in range(PICTURES)]
        painted = paint(self.net, self.autoencoder, quantizer_of(self.base), self.texts, self.sampling, draws, identifier)
        self.sheets[step] = torch.stack([torch.from_numpy(picture) for picture in painted])

    def state(self) -> dict[int, Tensor]:
        """What a resumed run needs, so that it leaves the same sheets."""
        return self.sheets

    def restore(self, state: dict[int, Tensor]) -> None:
        self.sheets = dict(state)

    def write(self, path: Path) -> None:
        """One picture, a row a step; a white strip where none were painted."""
        if self.sheets:
            _write_sheet(path, {step: list(pictures.numpy()) for step, pictures in self.sheets.items()}, self.prompts)
            return
        with whole_file(path) as part:
            Image.new("RGB", (420, 24), "white").save(part, format="png")


def _write_sheet(path: Path, sheets: dict[int, list[np.ndarray]], prompts: list[str]) -> None:
    from arbooth.painting.sheet import contact_sheet

    asked = ", ".join(prompts)
    contact_sheet(path, [(f"step {n}: {asked}", [Image.fromarray(one) for one in own]) for n, own in sheets.items()])
