"""Token caches: what fine-tuning reads of a subject, with what it was made with in the header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data.tensors import Wanted, check_tensors, read_tensors, write_tensors
from arbooth.errors import InputError
from arbooth.model.quantizer import Quantizer
from arbooth.model.text import Prompt


@dataclass
class SubjectTokens:
    """What fine-tuning reads of a subject: raw features [P,D,H,W] of its pictures and of each one's middle, which is not
    trained on, its training prompts, and which of them each picture has."""

    features: Tensor
    validation: Tensor
    prompts: list[Prompt]
    captions: list[int]

    def prompt_of_each(self) -> list[Prompt]:
        """One for each photo."""
        return [self.prompts[index] for index in self.captions]


def write_subject(path: Path, tokens: SubjectTokens, header: dict[str, str]) -> None:
    captions = torch.tensor(tokens.captions, dtype=torch.int64)
    tensors = {"features": tokens.features, "validation": tokens.validation, "captions": captions}
    for index, prompt in enumerate(tokens.prompts):
        tensors[f"prompt_{index}"] = prompt.features
        tensors[f"identifier_rows_{index}"] = torch.tensor(prompt.identifier_rows, dtype=torch.int64)
    write_tensors(path, tensors, header)


def read_subject(path: Path, expected: dict[str, str], quantizer: Quantizer) -> SubjectTokens:
    """Raises InputError: missing, damaged, stale, or not what this quantiser reads."""
    tensors = read_tensors(path, expected)
    count = sum(name.startswith("prompt_") for name in tensors)
    wanted: dict[str, Wanted] = {
        "features": (torch.float32, (None, quantizer.bits, *quantizer.maps[-1])),
        "validation": (torch.float32, (None, quantizer.bits, *quantizer.maps[-1])),
        "captions": (torch.int64, (None,)),
    }
    for index in range(count):
        wanted[f"prompt_{index}"] = (torch.float32, (None, None))
        wanted[f"identifier_rows_{index}"] = (torch.int64, (None,))
    check_tensors(path, tensors, wanted)
    prompts, captions = [], tensors["captions"].tolist()
    for index in range(count):
        prompts.append(Prompt(tensors[f"prompt_{index}"], tuple(tensors[f"identifier_rows_{index}"].tolist())))
        if not all(0 <= row < len(prompts[-1].features) for row in prompts[-1].identifier_rows):
            raise InputError(f"{path} places the identifier outside its prompt: delete it and run `dvc repro`")
    if len(tensors["validation"]) != len(tensors["features"]):
        raise InputError(f"{path} does not have each picture's middle to stop by: delete it and run `dvc repro`")
    if len(captions) != len(tensors["features"]) or not all(0 <= index < count for index in captions):
        raise InputError(f"{path} does not have a prompt for each photo: delete it and run `dvc repro`")
    return SubjectTokens(tensors["features"], tensors["validation"], prompts, captions)
