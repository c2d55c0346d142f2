"""From files to MLflow: one run a personalised model, a registered version, aliases.

Keyed by content: publishing the same files again finds the version that is there; publishing files that
DVC restored from its cache moves the candidate back to the version made of them. A version appears whole or
not at all: it is registered last, and whatever a failed or killed try left is taken away.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbooth.data.bases import Base
from arbooth.data.files import read_numbers, read_table, sha256
from arbooth.errors import InputError
from arbooth.owner import PUBLISHER, named, process_is_there
from arbooth.registry.gate import CANDIDATE, CHAMPION, MEASURED, check_bounds, compare, set_champion
from arbooth.registry.ledger import artifacts_of, experiment_of, ledger
from arbooth.registry.record import log_model, log_run
from arbooth.registry.snapshot import LOCKS, Standing, is_lost, model_name, snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# Tags of a version, and of its run.
KEY, GATE, EXPERIMENT, BY = "arbooth.key", "arbooth.gate", "arbooth.experiment", "arbooth.publisher"
# A try of another machine that is not finished is left alone for so long.
PATIENCE = 3600.0


@dataclass(frozen=True)
class Files:
    """What the stages left of one subject."""

    images: Path
    adapter: Path
    curves: Path
    samples: Path
    sheet: Path
    metrics: Path
    prompts: Path


@dataclass(frozen=True)
class Origin:
    """Where files come from.

    Attributes:
        commit: of the project, "" outside git; `clean` says whether nothing was changed since.
        locks: what DVC recorded, relative path -> text.
        experiment: name of DVC's experiment that made them; it moves no alias.
    """

    commit: str = ""
    clean: bool = False
    locks: dict[str, str] = field(default_factory=dict)
    experiment: str = ""


@dataclass(frozen=True)
class Entry:
    """One subject to publish.

    Attributes:
        params: nested parameters of the subject, for the record.
        sampling: how its pictures were drawn when it was judged; the registered model paints so.
        encoders: what measured them.
        gate: has `experiment`, `minimum`, `maximum` and `tolerance`.
    """

    subject: str
    noun: str
    files: Files
    base: Base
    params: dict
    sampling: dict
    encoders: str
    gate: Any
    origin: Origin = Origin()

    @property
    def measured(self) -> str:
        """Encoders and prompts: metrics of two versions can be compared where these agree."""
        prompts = [row["prompt"] for row in read_table(self.files.prompts)]
        return f"{self.encoders}, prompts {hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Published:
    """Where a subject stands in the ledger after publishing."""

    subject: str
    run_id: str
    version: str
    new: bool
    champion: bool
    gate: list[str]


def publish(entries: Sequence[Entry], tracking_uri: str, artifacts: Path) -> Iterator[Published]:
    """Log, register and alias subjects one after another; does nothing that is done already.

    Args:
        artifacts: where files go if the address is that of a bare database.

    Raises:
        InputError: a file is missing, or the tracking address can't be used.
    """
    for entry in entries:
        missing = [str(path) for path in vars(entry.files).values() if not path.exists()]
        if missing:
            raise InputError(
                f"nothing to publish of {entry.subject!r}: {', '.join(missing)} not there; run `dvc repro`"
            )
    if not entries:
        return
    with ledger(tracking_uri) as client:
        standings = snapshot(client, [entry.subject for entry in entries])
        for entry in entries:
            yield _publish(client, entry, standings[entry.subject], artifacts_of(tracking_uri, artifacts))


def _publish(client: MlflowClient, entry: Entry, standing: Standing, artifacts: str | None) -> Published:
    name, key = model_name(entry.subject), content_key(entry.files, entry.params)
    version = _version_of(standing, key)
    new = version is None
    if version is None:
        version = _register(client, entry, standing, key, artifacts)
    number, metrics = str(version.version), read_numbers(entry.files.metrics)
    if entry.origin.experiment:
        reason = f"made by the experiment {entry.origin.experiment}, which moves no alias"
        return Published(entry.subject, version.run_id, number, new, standing.aliases.get(CHAMPION) == number, [reason])
    failures = check_bounds(metrics, entry.gate.minimum, entry.gate.maximum)
    champion = standing.at(CHAMPION)
    if champion and str(champion.version) != number and entry.gate.tolerance and not failures:
        theirs = client.get_run(champion.run_id).data.metrics
        known = champion.tags.get(MEASURED, "")
        failures = compare(metrics, entry.measured, theirs, known, entry.gate.tolerance)
    verdict = "; ".join(failures)[:4000] or "passed"
    # The champion moves when the candidate does, or when the gate changes its mind: one that somebody
    # moved back by hand stays there.
    news = standing.aliases.get(CANDIDATE) != number or version.tags.get(GATE) != verdict
    if standing.aliases.get(CANDIDATE) != number:
        client.set_registered_model_alias(name, CANDIDATE, number)
    if news and not failures and standing.aliases.get(CHAMPION) != number:
        set_champion(client, entry.subject, standing, number, "passed the gate")
    if version.tags.get(GATE) != verdict:
        client.set_model_version_tag(name, number, GATE, verdict)
    return Published(entry.subject, version.run_id, number, new, standing.aliases.get(CHAMPION) == number, failures)


def content_key(files: Files, params: dict) -> str:
    """SHA-256 over the adapter, the curves, the pictures and the parameters; not over timings."""
    metrics = {k: v for k, v in read_numbers(files.metrics).items() if k != "seconds_per_image"}
    parts = [json.dumps(params, sort_keys=True, default=str), json.dumps(metrics, sort_keys=True)]
    parts += [sha256(path) for path in (files.adapter, files.curves, files.sheet, files.prompts)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _version_of(standing: Standing, key: str) -> ModelVersion | None:
    """The registered version made of this content, if its files are still there: the first, should there be two."""
    same = [version for version in standing.versions if version.tags.get(KEY) == key and not is_lost(version)]
    return same[-1] if same else None


def _register(client: MlflowClient, entry: Entry, standing: Standing, key: str, artifacts: str | None) -> ModelVersion:
    """A run, its model and a version of it; on any failure none of them."""
    from mlflow.exceptions import MlflowException

    name = model_name(entry.subject)
    experiment_id = experiment_of(client, entry.gate.experiment, artifacts)
    _sweep(client, experiment_id, key)
    tags = _tags(entry, key)
    run_id = client.create_run(experiment_id, tags=tags, run_name=entry.subject).info.run_id
    model, made = None, False
    try:
        log_run(client, run_id, entry)
        model = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
        log_model(client, model, entry)
        if not standing.registered:
            try:
                client.create_registered_model(
                    name, description=f"{entry.subject}, a {entry.noun}, personalised with arbooth"
                )
                made = True
            except MlflowException as error:  # another one was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        # The run is finished before there is a version of it, and the version names the run: whoever finds one of
        # the two finds a whole one.
        client.set_terminated(run_id, "FINISHED")
        # Its location, not `models:/ID`, which MLflow would look up at another caller's address.
        version = client.create_model_version(
            name,
            model.artifact_location,
            run_id,
            tags={**tags, LOCKS: json.dumps(entry.origin.locks), MEASURED: entry.measured},
            description=_description(entry),
            model_id=model.model_id,
        )
    except BaseException:
        _undo(client, run_id, model.model_id if model else None, name if made else None)
        raise
    standing.registered = True
    first = client.search_model_versions(f"name = '{name}' AND tags.`{KEY}` = '{key}'")
    whole = sorted((v for v in first if not is_lost(v)), key=lambda v: int(v.version))
    if whole and str(whole[0].version) != str(version.version):  # somebody else published the same at the same time
        client.delete_model_version(name, str(version.version))
        _undo(client, run_id, model.model_id, None)
        version = whole[0]
    standing.versions.insert(0, version)
    return version


def _tags(entry: Entry, key: str) -> dict[str, str]:
    origin = entry.origin
    return {
        KEY: key,
        BY: os.environ.get(PUBLISHER) or f"{socket.gethostname()} {named()}",
        "subject": entry.subject,
        "class": entry.noun,
        "base": entry.base.name,
        "base_hash": entry.base.hash,
        "encoders": entry.encoders,
        "git_commit": f"{origin.commit or 'no git'}{'' if origin.clean or not origin.commit else ', with changes since'}",
        **({EXPERIMENT: origin.experiment} if origin.experiment else {}),
    }


def _description(entry: Entry) -> str:
    """What the version is and how it is called, for people."""
    where = _tags(entry, "")["git_commit"]
    return (
        f"{entry.subject}, a {entry.noun}: base {entry.base.name} ({entry.base.hash[:12]}), measured with "
        f"{entry.encoders}, made at git commit {where}.\n\n"
        f'Call it with `[{{"prompt": "a <S*> {entry.noun} in the snow", "n": 1, "seed": 0}}]`; also known are guidance, '
        "temperature, top_k and top_p, which are otherwise as when it was judged."
    )


def _sweep(client: MlflowClient, experiment_id: str, key: str) -> None:
    """Take away what tries that ended in between left of the same content."""
    for run in client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=100):
        if _is_given_up(run):
            models = client.search_logged_models([experiment_id], f"source_run_id = '{run.info.run_id}'")
            if not any(model.status == "READY" and _is_registered(client, run.info.run_id) for model in models):
                for model in models:
                    client.delete_logged_model(model.model_id)
                client.delete_run(run.info.run_id)


def _is_given_up(run) -> bool:
    host, _, process = run.data.tags.get(BY, "").partition(" ")
    if run.data.tags.get(BY) == os.environ.get(PUBLISHER, ""):
        return True
    if host == socket.gethostname():
        return not process_is_there(process)
    return time.time() * 1000 - run.info.start_time > PATIENCE * 1000


def _is_registered(client: MlflowClient, run_id: str) -> bool:
    return bool(client.search_model_versions(f"run_id = '{run_id}'"))


def _undo(client: MlflowClient, run_id: str, model_id: str | None, name: str | None) -> None:
    """Each of what was made, as far as the ledger still answers; the next try takes the rest away."""
    from contextlib import suppress

    for step in (
        lambda: client.set_terminated(run_id, "FAILED"),
        lambda: client.delete_run(run_id),
        lambda: model_id and client.delete_logged_model(model_id),
        lambda: name and not client.search_model_versions(f"name = '{name}'") and client.delete_registered_model(name),
    ):
        with suppress(Exception):
            step()
