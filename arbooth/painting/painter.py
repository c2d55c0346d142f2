"""One base on the device, many subjects' adapters over it."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from arbooth.data.adapters import Adapter, applied, check_fits, read_adapter
from arbooth.data.bases import Base
from arbooth.data.networks import load_autoencoder, load_text_encoder, load_transformer, quantizer_of
from arbooth.errors import InputError
from arbooth.method.painting import paint, picture_generator
from arbooth.method.prompts import check_prompt, plain_prompts
from arbooth.model.identifier import IDENTIFIER
from arbooth.model.sampling import Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Painting:
    """A picture [H,W,3] bytes, its record for the file's metadata, and the seconds that it took."""

    pixels: np.ndarray
    record: dict
    seconds: float


class Painter:
    """Paints with a loaded base; adapters are put on and taken off in place.

    Args:
        base: which base to load, at the picture's shape.
        sampling: how bits are drawn where nothing else is asked: guidance, temperature, top_k, top_p.
        device: where.
        compute: the compute type, as in params.yaml.
        batch: pictures in one pass.
    """

    def __init__(
        self,
        base: Base,
        sampling: dict,
        device: torch.device | str = "cpu",
        compute: str = "float32",
        batch: int = 1,
    ) -> None:
        self.base, self.defaults, self.batch = base, sampling, batch
        self.net = load_transformer(base, device, compute)
        self.autoencoder = load_autoencoder(base, device, compute, only="decoder")
        self.encoder = load_text_encoder(base)
        self.adapters: dict[str, tuple[Adapter, str]] = {}
        # Adapters change the network in place: one picture at a time, whoever asks.
        self._lock = threading.Lock()

    def add(self, path: Path, subject: str | None = None) -> Adapter:
        """Read an adapter and keep it under its subject's name.

        Raises:
            InputError: it is not an adapter, or belongs to another base, or to another subject than asked.
        """
        adapter = read_adapter(path, subject)
        check_fits(adapter, self.net, self.base.hash)
        self.adapters[adapter.subject] = (adapter, _digest(adapter))
        return adapter

    def sampling(self, **given) -> Sampling:
        """The painter's own sampling with what is given on top (None means not given).

        Raises:
            InputError: values out of range.
        """
        values = {**self.defaults, **{k: v for k, v in given.items() if v is not None}}
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
        """Paint (prompt, index) pairs, one picture each; `batch` of them in a pass.

        Raises:
            InputError: an unknown subject; an identifier without one; an empty prompt.
        """
        if subject is not None and subject not in self.adapters:
            raise InputError(f"no adapter of {subject!r} is loaded")
        adapter, digest = self.adapters[subject] if subject else (None, None)
        identifier = adapter.identifier if adapter else None
        origin = {"base": self.base.name, "base_hash": self.base.hash, "subject": subject, "adapter": digest}
        paintings = []
        try:
            for prompt in dict.fromkeys(prompt for prompt, _ in prompts):
                check_prompt(prompt, adapter is not None)
                unknown = self.encoder.unknown_words(prompt)
                if unknown:
                    words = ", ".join(unknown)
                    logger.warning("base %r does not know the words %s: they do little", self.base.name, words)
            plain = _plain(adapter, sampling, [prompt for prompt, _ in prompts])
            wanted = [*(prompt for prompt, _ in prompts), *(text for pair in plain.values() for text in pair)]
            # One picture takes less than the half that is free then; of many, that is not known.
            with self._lock, self.encoder.on(self.net.device, stay=self.batch == 1):
                encoded = {prompt: self.encoder.encode(prompt) for prompt in dict.fromkeys(wanted)}
            with self._lock, applied(adapter, self.net):
                for first in progress(range(0, len(prompts), self.batch)):
                    started = time.perf_counter()
                    asked = prompts[first : first + self.batch]
                    texts = [encoded[prompt] for prompt, _ in asked]
                    moved = any(prompt in plain for prompt, _ in asked)
                    beside = [tuple(encoded[text] for text in plain.get(p, (p, p))) for p, _ in asked] if moved else None
                    draws = [picture_generator(seed, prompt, index) for prompt, index in asked]
                    painted = paint(
                        self.net, self.autoencoder, quantizer_of(self.base), texts, sampling, draws, identifier, beside
                    )
                    seconds = (time.perf_counter() - started) / len(asked)
                    for (prompt, index), pixels in zip(asked, painted):
                        record = {"prompt": prompt, "seed": seed, "index": index, "sampling": asdict(sampling)}
                        paintings.append(Painting(pixels, {**record, **origin}, seconds))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from None
        return paintings


def _plain(adapter: Adapter | None, sampling: Sampling, prompts: list[str]) -> dict[str, tuple[str, str]]:
    """What prompt guidance compares for the prompts that it moves: those of a subject."""
    given = sampling.prompt_guidance
    if adapter is None or not any(given if isinstance(given, tuple) else (given,)):
        return {}
    return {prompt: plain_prompts(prompt, adapter.noun) for prompt in prompts if IDENTIFIER in prompt}


def _digest(adapter: Adapter) -> str:
    digest = hashlib.sha256(adapter.identifier.numpy().tobytes())
    for name, value in sorted(adapter.parameters.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
