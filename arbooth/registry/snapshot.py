"""What the registry holds of many subjects, in a number of queries that does not grow with theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "arbooth-"
# Tag of a version: DVC's records of what it was made of, as JSON.
LOCKS = "arbooth.locks"
PAGE = 1000


def model_name(subject: str) -> str:
    return f"{PREFIX}{subject}"


@dataclass
class Standing:
    """One registered model: its versions, newest first, its aliases (alias -> number as text) and tags."""

    versions: list[ModelVersion] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    registered: bool = False

    def numbered(self, number: str | None) -> ModelVersion | None:
        return next((version for version in self.versions if str(version.version) == str(number)), None)

    def at(self, alias: str) -> ModelVersion | None:
        """The version that an alias points at."""
        return self.numbered(self.aliases.get(alias))


def snapshot(client: MlflowClient, subjects: Iterable[str] | None = None) -> dict[str, Standing]:
    """How each subject stands: of one by its name, of all by one query a thousand."""
    wanted = None if subjects is None else list(subjects)
    alone = wanted is not None and len(wanted) == 1
    chosen = f"name = '{model_name(wanted[0])}'" if wanted and alone else f"name LIKE '{PREFIX}%'"
    found: dict[str, Standing] = {name: Standing() for name in wanted or ()}
    for model in _pages(client.search_registered_models, chosen):
        standing = found.setdefault(model.name.removeprefix(PREFIX), Standing())
        standing.aliases = {alias: str(number) for alias, number in model.aliases.items()}
        standing.tags, standing.registered = dict(model.tags), True
    for version in _pages(client.search_model_versions, chosen):
        found.setdefault(version.name.removeprefix(PREFIX), Standing()).versions.append(version)
    for standing in found.values():
        standing.versions.sort(key=lambda version: -int(version.version))
    return found if wanted is None else {name: found[name] for name in wanted}


def is_lost(version: ModelVersion) -> bool:
    """Whether the files of a version are gone from this machine's disk; what a server keeps is not asked for."""
    place = (version.source or "").removeprefix("file://")
    return place.startswith("/") and not Path(place).is_dir()


def _pages(search: Any, chosen: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(filter_string=chosen, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
