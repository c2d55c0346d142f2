"""From files to MLflow: one run a personalised model, a registered version, aliases.

Keyed by content: publishing the same files again finds the run that is there; publishing files that
DVC restored from its cache moves the candidate back to the version made of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.adapters import read_adapter, write_adapter
from arbooth.data.bases import Base
from arbooth.data.files import read_json, sha256, write_json
from arbooth.errors import InputError
from arbooth.registry.ledger import experiment_of, has_artifacts, ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

KEY, GATE = "arbooth.key", "arbooth.gate"
SERVED = Path(__file__).with_name("served.py")


@dataclass(frozen=True)
class Files:
    """What the stages left of one subject."""

    adapter: Path
    curves: Path
    sheet: Path
    metrics: Path
    prompts: Path


@dataclass(frozen=True)
class Published:
    """Where a subject stands in the ledger after publishing."""

    subject: str
    run_id: str
    version: str
    new: bool
    champion: bool
    gate: list[str]


def publish(
    subject: str,
    noun: str,
    files: Files,
    base: Base,
    params: dict,
    sampling: dict,
    gate,
    tracking_uri: str,
) -> Published:
    """Log, register and alias one subject; does nothing that is done already.

    Args:
        params: nested parameters of the subject, for the record.
        sampling: how its pictures were drawn when it was judged; the registered model paints so.
        gate: has `experiment`, and `minimum` and `maximum`, metric name to bound.

    Raises:
        InputError: a file is missing, or the tracking address can't be used.
    """
    missing = [str(p) for p in vars(files).values() if not p.exists()]
    if missing:
        raise InputError(f"nothing to publish of {subject!r}: {', '.join(missing)} not there; run `dvc repro`")
    name = f"arbooth-{subject}"
    metrics = read_json(files.metrics)
    key = content_key(files, params)
    with ledger(tracking_uri) as client:
        version = _version(client, name, key, tracking_uri)
        new = version is None
        if new:
            experiment_id = experiment_of(client, gate.experiment, tracking_uri)
            tags = {KEY: key, "subject": subject, "class": noun, "base": base.name, "base_hash": base.hash}
            run_id = _log_run(client, experiment_id, subject, tags, files, params, metrics)
            model = _log_model(client, experiment_id, run_id, subject, files.adapter, base, sampling)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name, description=f"{subject}, a {noun}, personalised with arbooth")
            # Its location, not `models:/ID`, which MLflow would look up at another caller's address.
            version = client.create_model_version(
                name, model.artifact_location, run_id, tags={KEY: key}, model_id=model.model_id
            )
        failures = check_gate(metrics, gate.minimum, gate.maximum)
        verdict = "failed" if failures else "passed"
        # The champion moves when the candidate does, or when the gate changes its mind: one that somebody
        # moved back by hand stays there.
        news = _alias(client, name, "candidate", version.version) or version.tags.get(GATE) != verdict
        if news and not failures:
            _alias(client, name, "champion", version.version)
        if version.tags.get(GATE) != verdict:
            client.set_model_version_tag(name, str(version.version), GATE, verdict)
        champion = client.get_registered_model(name).aliases.get("champion")
        return Published(
            subject, version.run_id, str(version.version), new, str(champion) == str(version.version), failures
        )


def content_key(files: Files, params: dict) -> str:
    """SHA-256 over the adapter, the curves, the pictures and the parameters; not over timings."""
    metrics = {k: v for k, v in read_json(files.metrics).items() if k != "seconds_per_image"}
    parts = [json.dumps(params, sort_keys=True, default=str), json.dumps(metrics, sort_keys=True)]
    parts += [sha256(path) for path in (files.adapter, files.curves, files.sheet, files.prompts)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_gate(metrics: dict[str, float], minimum: dict[str, float], maximum: dict[str, float]) -> list[str]:
    """What keeps a model from becoming champion; a metric that was not measured does."""
    failures = []
    for name, bound in minimum.items():
        if not metrics.get(name, math.nan) >= bound:
            failures.append(f"{name} is {metrics.get(name, 'missing')}, must be at least {bound}")
    for name, bound in maximum.items():
        if not metrics.get(name, math.nan) <= bound:
            failures.append(f"{name} is {metrics.get(name, 'missing')}, must be at most {bound}")
    return failures


def _version(client: MlflowClient, name: str, key: str, tracking_uri: str):
    """The registered version made of this content, if its files are still there."""
    versions = client.search_model_versions(f"name = '{name}'")
    same = (version for version in versions if version.tags.get(KEY) == key)
    return next((version for version in same if has_artifacts(version.source, tracking_uri)), None)


def _alias(client: MlflowClient, name: str, alias: str, version) -> bool:
    """Point an alias at a version; says whether it pointed elsewhere."""
    if str(client.get_registered_model(name).aliases.get(alias)) == str(version):
        return False
    client.set_registered_model_alias(name, alias, str(version))
    return True


def _log_run(
    client: MlflowClient, experiment_id: str, subject: str, tags: dict, files: Files, params: dict, metrics: dict
) -> str:
    """A finished run with everything that tells how the subject was made; its id."""
    from mlflow.entities import Metric, Param

    run_id = client.create_run(experiment_id, tags=tags, run_name=subject).info.run_id
    now = int(time.time() * 1000)
    values = [Metric(name, value, now, 0) for name, value in metrics.items()] + _curves(files.curves)
    entries = [Param(name, value) for name, value in _flat(params).items()]
    for start in range(0, len(entries), 100):
        client.log_batch(run_id, params=entries[start : start + 100])
    for start in range(0, len(values), 500):
        client.log_batch(run_id, metrics=values[start : start + 500])
    for path in (files.sheet, files.prompts, files.metrics):
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _log_model(
    client: MlflowClient, experiment_id: str, run_id: str, subject: str, adapter: Path, base: Base, sampling: dict
) -> LoggedModel:
    """The adapter with how it was judged in its header, and a reference to its base, as a logged model."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        kept, record = Path(folder) / "adapter.safetensors", Path(folder) / "base.json"
        judged = read_adapter(adapter, subject)
        write_adapter(kept, replace(judged, settings={**judged.settings, "sampling": sampling}))
        write_json(record, {"name": base.name, "hash": base.hash, "record": base.record})
        mlflow.pyfunc.save_model(
            str(Path(folder) / "model"),
            python_model=str(SERVED),
            artifacts={"adapter": str(kept), "base": str(record)},
            pip_requirements=["arbooth"],
        )
        model = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    return client.finalize_logged_model(model.model_id, "READY")


def _curves(folder: Path) -> list:
    from mlflow.entities import Metric

    points = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            points += [Metric(f"curve/{path.stem}", float(r["value"]), 0, int(r["step"])) for r in csv.DictReader(file)]
    return points


def _flat(tree: dict, prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
