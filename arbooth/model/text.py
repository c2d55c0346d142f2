"""Prompt features of a frozen T5 encoder, and where the subject's identifier stands in them.

Shape suffixes: T text tokens, F text width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from arbooth.model.identifier import IDENTIFIER


@dataclass
class Prompt:
    """Features [T,F] of one prompt, padding removed, and the rows of its identifier."""

    features: Tensor
    identifier_rows: tuple[int, ...] = ()

    def with_subject(self, identifier_NF: Tensor | None) -> Tensor:
        """Features with every identifier row replaced by the subject's N learned rows: [T+N-1,F]."""
        if identifier_NF is None or not self.identifier_rows:
            return self.features
        parts, start = [], 0
        for row in self.identifier_rows:
            parts += [self.features[start:row], identifier_NF.to(self.features)]
            start = row + 1
        return torch.cat([*parts, self.features[start:]])


class TextEncoder:
    """A T5 encoder with its word list.

    The identifier is the first id after the word list, an unused row of the embedding table (32100
    of 32128 in flan-t5), so its input embedding is the same everywhere. Prompts are encoded one at a
    time: their features never depend on what else is asked.

    Args:
        model: a `transformers` T5EncoderModel, frozen.
        tokenizer: its `transformers` tokenizer.
        longest: longer prompts are refused.

    Raises:
        ValueError: the embedding table has no unused row for the identifier.
    """

    def __init__(self, model, tokenizer, longest: int = 512) -> None:
        self.model = self._home = model.eval().requires_grad_(False)
        self.tokenizer, self.longest = tokenizer, longest
        if IDENTIFIER not in tokenizer.get_vocab():
            tokenizer.add_tokens([IDENTIFIER], special_tokens=True)
        self.identifier = tokenizer.convert_tokens_to_ids(IDENTIFIER)
        rows = model.config.vocab_size
        if self.identifier >= rows:
            raise ValueError(f"the text encoder has {rows} rows and none is left for {IDENTIFIER}")

    @contextmanager
    def on(self, device: torch.device | str, stay: bool = False) -> Iterator[None]:
        """The encoder on a device while prompts are encoded.

        The weights where they were loaded are kept, so that freeing the others costs no time.

        Args:
            stay: afterwards too, if half of the memory is free beside it.
        """
        device = torch.device(device)
        if device.type != "cuda":
            yield
            return
        if self.model.device != device:
            self.model = copy.deepcopy(self._home).to(device)
        try:
            yield
        finally:
            free, total = torch.cuda.mem_get_info(device)
            if not stay or free < total / 2:
                self.model = self._home

    @property
    def width(self) -> int:
        return self.model.config.d_model

    def unknown_words(self, prompt: str) -> list[str]:
        """Words that the encoder's word list lacks altogether."""
        return unknown_words(self.tokenizer, prompt)

    @torch.no_grad()
    def encode(self, prompt: str) -> Prompt:
        """Features of one prompt, float32 or better.

        Raises:
            ValueError: the prompt is empty, or longer than the encoder reads: nothing is cut off.
        """
        if not prompt.strip():
            raise ValueError("a prompt must hold at least one word")
        ids = self.tokenizer(prompt, truncation=False, verbose=False, return_tensors="pt").input_ids
        if ids.shape[1] > self.longest:
            raise ValueError(f"the prompt has {ids.shape[1]} tokens, the text encoder reads {self.longest}: shorten it")
        hidden = self.model(input_ids=ids.to(self.model.device)).last_hidden_state[0]
        rows = tuple(i for i, token in enumerate(ids[0].tolist()) if token == self.identifier)
        return Prompt(hidden.float(), rows)


def unknown_words(tokenizer, prompt: str) -> list[str]:
    """Words of a prompt that a word list lacks altogether."""
    unknown, words = tokenizer.unk_token_id, prompt.replace(IDENTIFIER, " ").split()
    return [word for word in words if unknown in tokenizer(word, add_special_tokens=False).input_ids]
