"""Adapters: what was trained, and nothing else, with where it belongs in its header."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arbooth.data.caches import open_tensors, write_tensors
from arbooth.errors import InputError
from arbooth.model.transformer import Transformer

FORMAT = "arbooth-adapter-1"


@dataclass
class Adapter:
    """A personalised subject.

    Attributes:
        token: [N,F], learned rows that stand in the text features for `<S*>`.
        parameters: trained weights by name in `Transformer`.
        base: hash of the base model.
        subject, noun: whom it paints ("poodle", "dog").
        settings: the recipe, for the record.
    """

    token: Tensor
    parameters: dict[str, Tensor]
    base: str
    subject: str
    noun: str
    settings: dict


def write_adapter(path: Path, adapter: Adapter) -> None:
    header = {
        "format": FORMAT,
        "base": adapter.base,
        "subject": adapter.subject,
        "noun": adapter.noun,
        "settings": json.dumps(adapter.settings, sort_keys=True),
    }
    write_tensors(path, {"subject_token": adapter.token, **adapter.parameters}, header)


def read_adapter(path: Path) -> Adapter:
    """Raises InputError: the file is missing, broken or not an adapter."""
    tensors, header = open_tensors(path)
    if header.get("format") != FORMAT or "subject_token" not in tensors:
        raise InputError(f"{path} is not an adapter of arbooth")
    return Adapter(
        tensors.pop("subject_token"),
        tensors,
        header["base"],
        header["subject"],
        header["noun"],
        json.loads(header["settings"]),
    )


def check_fits(adapter: Adapter, net: Transformer, base_hash: str) -> None:
    """Raises InputError: another base, unknown names, shapes that differ, or weights that are not finite."""
    if adapter.base != base_hash:
        raise InputError(
            f"the adapter of {adapter.subject!r} belongs to base {adapter.base[:12]}, not to this one "
            f"({base_hash[:12]}): load the base that it was trained on"
        )
    own = dict(net.named_parameters())
    for name, value in [("subject_token", adapter.token), *adapter.parameters.items()]:
        if name != "subject_token" and (name not in own or own[name].shape != value.shape):
            raise InputError(
                f"the adapter of {adapter.subject!r} has {name} {tuple(value.shape)}, which this base lacks"
            )
        if not torch.isfinite(value).all():
            raise InputError(
                f"the adapter of {adapter.subject!r} holds numbers that are not finite in {name}: train it again"
            )


@contextmanager
def applied(adapter: Adapter | None, net: Transformer):
    """The network with an adapter in place; the base's own weights are back afterwards, bit for bit.

    The adapter is one that `check_fits`. Not for several threads at once.
    """
    if adapter is None:
        yield net
        return
    own = dict(net.named_parameters())
    before = {name: own[name].data for name in adapter.parameters}
    try:
        for name, value in adapter.parameters.items():
            own[name].data = value.to(own[name].device, own[name].dtype)
        yield net
    finally:
        for name, value in before.items():
            own[name].data = value
