"""One base on the device, many subjects' adapters over it."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from arbooth.data.adapters import Adapter, applied, check_fits, read_adapter
from arbooth.data.bases import Base
from arbooth.errors import InputError
from arbooth.method.painting import paint
from arbooth.model.sampling import Sampling
from arbooth.model.text import IDENTIFIER


@dataclass(frozen=True)
class Painting:
    """A picture [H,W,3] bytes, its record for the file's metadata, and the seconds that it took."""

    pixels: np.ndarray
    record: dict
    seconds: float


class Painter:
    """Paints with a loaded base; adapters are put on and taken off in place.

    Args:
        base: which base to load.
        device: where.
        ratio, pixels, compute: the picture's shape and the compute type, as in params.yaml.
    """

    def __init__(
        self,
        base: Base,
        device: torch.device | str = "cpu",
        ratio: float = 1.0,
        pixels: str = "default",
        compute: str = "float32",
    ) -> None:
        self.base = base
        self.quantizer = base.quantizer(ratio, pixels)
        self.net, self.autoencoder = base.transformer(device, compute), base.autoencoder(device)
        self.encoder = base.text_encoder(device)
        self.adapters: dict[str, tuple[Adapter, str]] = {}
        # Adapters change the network in place: one picture at a time, whoever asks.
        self._lock = threading.Lock()

    def add(self, path: Path) -> Adapter:
        """Read an adapter and keep it under its subject's name.

        Raises:
            InputError: it is not an adapter, or belongs to another base.
        """
        adapter = read_adapter(path)
        check_fits(adapter, self.net, self.base.hash)
        self.adapters[adapter.subject] = (adapter, _digest(adapter))
        return adapter

    def sampling(self, **given) -> Sampling:
        """The base's own sampling defaults with what is given on top (None means not given).

        Raises:
            InputError: values out of range.
        """
        values = {**self.base.record["sampling"], **{k: v for k, v in given.items() if v is not None}}
        try:
            return Sampling(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from None

    def paint(
        self,
        prompts: list[tuple[str, int]],
        seed: int,
        sampling: Sampling,
        subject: str | None = None,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> list[Painting]:
        """Paint (prompt, index) pairs, one picture each.

        Raises:
            InputError: an unknown subject; an identifier without one; an empty prompt.
        """
        if subject is not None and subject not in self.adapters:
            raise InputError(f"no adapter of {subject!r} is loaded")
        adapter, digest = self.adapters[subject] if subject else (None, None)
        for prompt, _ in prompts:
            check_prompt(prompt, adapter)
        origin = {"base": self.base.name, "base_hash": self.base.hash, "subject": subject, "adapter": digest}
        paintings = []
        with self._lock, applied(adapter, self.net):
            for prompt, index in progress(prompts):
                started = time.perf_counter()
                pixels = self._paint_one(prompt, index, seed, sampling, adapter.token if adapter else None)
                record = {"prompt": prompt, "seed": seed, "index": index, "sampling": asdict(sampling), **origin}
                paintings.append(Painting(pixels, record, time.perf_counter() - started))
        return paintings

    def _paint_one(
        self, prompt: str, index: int, seed: int, sampling: Sampling, token: torch.Tensor | None
    ) -> np.ndarray:
        try:
            return paint(self.net, self.autoencoder, self.quantizer, self.encoder, prompt, sampling, seed, index, token)
        except ValueError as error:
            raise InputError(str(error)) from None


def check_prompt(prompt: str, adapter: Adapter | None) -> None:
    """Raises InputError: the prompt is empty, or its identifier has nothing to stand for."""
    if not prompt.strip():
        raise InputError("the prompt is empty: write what to paint, say 'a <S*> cat in the snow'")
    if adapter is None and IDENTIFIER in prompt:
        raise InputError(f"the prompt holds {IDENTIFIER}, but no subject is chosen")
    odd = [word for word in re.findall(r"<[^<>\s]*>", prompt) if word != IDENTIFIER]
    if odd:
        raise InputError(f"the prompt holds {odd[0]}; the identifier is written {IDENTIFIER}")


def _digest(adapter: Adapter) -> str:
    digest = hashlib.sha256(adapter.token.numpy().tobytes())
    for name, value in sorted(adapter.parameters.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
