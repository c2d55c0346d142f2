"""What a picture of the embedded base's world shows: a classifier that saw rendered pictures only.

`pretrain/train_encoders.py` makes it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from arbooth.data.checkpoints import read_weights
from arbooth.data.files import EMBEDDED, read_json
from arbooth.errors import InputError
from arbooth.metrics.embedded import WIDTH, ConvTower, sized


class Judge(nn.Module):
    """One tower, one linear head for each question.

    Args:
        labels: question -> its possible answers, say "scene" -> ["in the snow", ...].
    """

    def __init__(self, labels: dict[str, list[str]]) -> None:
        super().__init__()
        self.labels, self.tower = labels, ConvTower()
        self.heads = nn.ModuleDict({question: nn.Linear(WIDTH, len(answers)) for question, answers in labels.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """[B,3,H,W] in [0,1] -> logits [B,answers] of every question."""
        features = nn.functional.silu(self.tower(sized(pixels))[1])
        return {question: head(features) for question, head in self.heads.items()}

    @torch.inference_mode()
    def answers(self, pixels: Tensor) -> list[dict[str, str]]:
        """The likeliest answer to every question, for each picture [B,3,H,W] in [0,1]."""
        best = {question: logits.argmax(1).tolist() for question, logits in self(pixels).items()}
        return [{q: self.labels[q][best[q][i]] for q in self.labels} for i in range(len(pixels))]


def load_judge(embedded: Path = EMBEDDED) -> Judge:
    """The judge that the package carries.

    Raises:
        InputError: its files are missing or broken.
    """
    try:
        judge = Judge(read_json(embedded / "encoders.json")["labels"])
        judge.load_state_dict({k: v.float() for k, v in read_weights(embedded / "judge.safetensors").items()})
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{embedded} holds no judge ({str(error).splitlines()[0]}): install arbooth anew") from None
    return judge.eval().requires_grad_(False)
