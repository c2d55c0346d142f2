"""Adapters: what was trained, and nothing else, with where it belongs in its header."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from arbooth.data.tensors import open_tensors, write_tensors
from arbooth.errors import InputError, checked_name
from arbooth.method.tuning import KINDS, check_finite, shrunk
from arbooth.model.transformer import Transformer

FORMAT, BEFORE = "arbooth-adapter-2", "arbooth-adapter-1"
IDENTIFIER = "identifier"


@dataclass
class Adapter:
    """A personalised subject.

    Attributes:
        identifier: [N,F], learned rows that stand in the text features for `<S*>`.
        parameters: what was trained, by name.
        base: hash of the base model.
        subject, noun: whom it paints ("poodle", "dog").
        settings: the recipe; compute type and picture shape; in the registry also `sampling`, with which it was
            judged.
        kind: of `method.tuning.KINDS`.
    """

    identifier: Tensor
    parameters: dict[str, Tensor]
    base: str
    subject: str
    noun: str
    settings: dict
    kind: str = "full"


def write_adapter(path: Path, adapter: Adapter) -> None:
    header = {
        "format": FORMAT,
        "kind": adapter.kind,
        "base": adapter.base,
        "subject": adapter.subject,
        "noun": adapter.noun,
        "settings": json.dumps(adapter.settings, sort_keys=True),
    }
    write_tensors(path, {IDENTIFIER: adapter.identifier, **adapter.parameters}, header)


def read_adapter(path: Path, subject: str | None = None) -> Adapter:
    """Raises InputError: the file is missing, damaged, not an adapter, of an unknown kind, or of another `subject`."""
    tensors, header = open_tensors(path)
    if header.get("format") == BEFORE and "subject_token" in tensors:
        tensors[IDENTIFIER] = tensors.pop("subject_token")
    elif header.get("format") != FORMAT or IDENTIFIER not in tensors:
        raise InputError(f"{path} is not an adapter of arbooth")
    kind = header.get("kind", "full")
    if kind not in KINDS:
        raise InputError(f"{path} is an adapter of kind {kind!r}, which this version can't read: update arbooth")
    try:
        settings = json.loads(header["settings"])
        found = Adapter(
            tensors.pop(IDENTIFIER), tensors, header["base"], header["subject"], header["noun"], settings, kind
        )
        if not isinstance(settings, dict):
            raise ValueError("its settings are no table")
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path} has a header that lacks something ({error}): train it again") from None
    checked_name(found.subject, f"the subject in the header of {path}")
    if subject is not None and found.subject != subject:
        raise InputError(f"{path} is the adapter of {found.subject!r}, not of {subject!r}: put it back, or train again")
    return found


def check_fits(adapter: Adapter, net: Transformer, base_hash: str) -> None:
    """Raises InputError: another base, unknown names, shapes that differ, or weights that are not finite."""
    if adapter.base != base_hash:
        raise InputError(
            f"the adapter of {adapter.subject!r} belongs to base {adapter.base[:12]}, not to this one "
            f"({base_hash[:12]}): load the base that it was trained on"
        )
    if adapter.identifier.ndim != 2 or adapter.identifier.shape[1] != net.config.text_width:
        raise InputError(f"the adapter of {adapter.subject!r} has an identifier of another shape: train it again")
    try:
        KINDS[adapter.kind].check(adapter.parameters, net)
    except ValueError as error:
        raise InputError(f"the adapter of {adapter.subject!r} has {error}") from None
    try:
        check_finite({IDENTIFIER: adapter.identifier, **adapter.parameters})
    except ValueError as error:
        raise InputError(f"the adapter of {adapter.subject!r} holds {error}: train it again") from None


def shrink(adapter: Adapter, net: Transformer, rank: int) -> tuple[Adapter, dict[str, float]]:
    """A low-rank adapter from a full one, and what it loses: the share of every matrix's change, in Frobenius norm.

    Args:
        net: the adapter's base; the adapter is one that `check_fits`.

    Raises:
        InputError: it is of low rank already, or the rank does not fit.
    """
    if adapter.kind != "full":
        raise InputError(f"the adapter of {adapter.subject!r} is of kind {adapter.kind!r} already: shrink a full one")
    lost: dict[str, float] = {}
    tensors = shrunk(adapter.parameters, net, rank, lost.__setitem__)
    if not lost:
        raise InputError(f"the adapter of {adapter.subject!r} holds no matrix: it is as small as can be")
    return replace(adapter, parameters=tensors, kind="low-rank", settings={**adapter.settings, "rank": rank}), lost


@contextmanager
def applied(adapter: Adapter | None, net: Transformer) -> Iterator[Transformer]:
    """The network with an adapter in place; the base's own weights are back afterwards, bit for bit.

    The adapter is one that `check_fits`. Not for several threads at once.
    """
    if adapter is None:
        yield net
        return
    with KINDS[adapter.kind].applied(adapter.parameters, net):
        yield net
