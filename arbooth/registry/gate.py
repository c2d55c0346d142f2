"""Which version serves: bounds, the comparison with the present champion, and what people decide by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from arbooth.errors import InputError, checked_name
from arbooth.registry.ledger import ledger
from arbooth.registry.snapshot import Standing, model_name, snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE, CHAMPION = "candidate", "champion"
# On a version: with what it was measured, and why it was made champion. On a model: who was, in order.
MEASURED, PROMOTED, CHAMPIONS = "arbooth.measured", "arbooth.promoted", "arbooth.champions"
# Metrics of which less is better; of all others more is.
LESS_IS_BETTER = ("PRES", "seconds")


def check_bounds(metrics: Mapping[str, float], minimum: Mapping[str, float], maximum: Mapping[str, float]) -> list[str]:
    """What keeps a model from becoming champion; a metric that was not measured does."""
    failures = []
    for name, bound in minimum.items():
        if not metrics.get(name, math.nan) >= bound:
            failures.append(f"{name} is {metrics.get(name, 'missing')}, must be at least {bound}")
    for name, bound in maximum.items():
        if not metrics.get(name, math.nan) <= bound:
            failures.append(f"{name} is {metrics.get(name, 'missing')}, must be at most {bound}")
    return failures


def compare(
    metrics: Mapping[str, float],
    measured: str,
    champions: Mapping[str, float],
    theirs: str,
    tolerance: Mapping[str, float],
) -> list[str]:
    """In what a model is worse than the champion by more than is tolerated, or why that can't be told.

    Args:
        measured, theirs: encoders and prompts of both.
        tolerance: metric -> how much worse it may be.
    """
    if not tolerance:
        return []
    if measured != theirs:
        return [
            "the champion was measured with other encoders or prompts: compare them, then `arbooth registry promote`"
        ]
    failures = []
    for name, allowed in tolerance.items():
        if name not in metrics:
            failures.append(f"{name} is not measured with these encoders: name another in publish.tolerance")
            continue
        ours, best = metrics.get(name, math.nan), champions.get(name, math.nan)
        worse = ours - best if name.startswith(LESS_IS_BETTER) else best - ours
        if not worse <= allowed:
            failures.append(f"{name} is {ours}, the champion has {best}: worse by more than {allowed}")
    return failures


def set_champion(client: MlflowClient, subject: str, standing: Standing, number: str, why: str) -> None:
    """Point the alias at a version, and write down why and when."""
    name = model_name(subject)
    before = [n for n in standing.tags.get(CHAMPIONS, "").split(",") if n]
    client.set_model_version_tag(name, number, PROMOTED, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {why}")
    client.set_registered_model_tag(name, CHAMPIONS, ",".join([*before, number]))
    client.set_registered_model_alias(name, CHAMPION, number)
    standing.aliases[CHAMPION] = number
    standing.tags[CHAMPIONS] = ",".join([*before, number])


def promote(tracking_uri: str, subject: str, version: str | None = None, reason: str = "by hand") -> str:
    """Make a version the champion, whatever its metrics: the candidate, unless another is named.

    Returns:
        What was done, in a sentence.

    Raises:
        InputError: no such subject or version in the registry.
    """
    with ledger(tracking_uri, existing=True) as client:
        standing = _registered(client, subject)
        chosen = version or standing.aliases.get(CANDIDATE)
        return _move(client, subject, standing, chosen, reason)


def rollback(tracking_uri: str, subject: str, version: str | None = None, reason: str = "rolled back by hand") -> str:
    """Make the champion before the present one champion again, or the version that is named.

    Raises:
        InputError: no such subject or version, or there was no other champion before.
    """
    with ledger(tracking_uri, existing=True) as client:
        standing = _registered(client, subject)
        now = standing.aliases.get(CHAMPION)
        before = [n for n in standing.tags.get(CHAMPIONS, "").split(",") if n and n != now and standing.numbered(n)]
        if version is None and not before:
            raise InputError(f"{subject!r} had no champion before version {now}: name a version")
        return _move(client, subject, standing, version or before[-1], reason)


def _registered(client: MlflowClient, subject: str) -> Standing:
    standing = snapshot(client, [checked_name(subject, "a subject")])[subject]
    if not standing.versions:
        raise InputError(f"the registry has no {model_name(subject)}: publish it first")
    return standing


def _move(client: MlflowClient, subject: str, standing: Standing, number: str | None, reason: str) -> str:
    if number is None or standing.numbered(number) is None:
        known = ", ".join(str(version.version) for version in standing.versions)
        raise InputError(f"{model_name(subject)} has no version {number} (known: {known})")
    before = standing.aliases.get(CHAMPION, "none")
    set_champion(client, subject, standing, str(number), reason)
    return f"{model_name(subject)}: champion is version {number}, was {before} ({reason})"
