"""From files to MLflow: one run a personalised model, a registered version, aliases.

Keyed by content: publishing the same files again finds the run that is there; publishing files that
DVC restored from its cache moves the candidate back to the version made of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arbooth.data.bases import Base
from arbooth.data.files import read_json, sha256
from arbooth.errors import InputError
from arbooth.settings import without_secrets

KEY, GATE = "arbooth.key", "arbooth.gate"
SERVED = Path(__file__).resolve().parent.parent / "serving" / "registered.py"


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
    subject: str, noun: str, files: Files, base: Base, params: dict, gate, experiment: str, tracking_uri: str
) -> Published:
    """Log, register and alias one subject; does nothing that is done already.

    Args:
        params: nested parameters of the subject, for the record.
        gate: has `minimum` and `maximum`, metric name to bound.

    Raises:
        InputError: a file is missing, or the tracking address can't be used.
    """
    missing = [str(p) for p in vars(files).values() if not p.exists()]
    if missing:
        raise InputError(f"nothing to publish of {subject!r}: {', '.join(missing)} not there; run `dvc repro`")
    name = f"arbooth-{subject}"
    metrics = read_json(files.metrics)
    key = content_key(files, params)
    with ledger(tracking_uri) as (mlflow, client):
        experiment_id = experiment_of(client, experiment, tracking_uri)
        version = _version(client, name, key)
        if version is None:
            version = _log(mlflow, client, experiment_id, subject, noun, files, base, params, metrics, key)
            new = True
        else:
            new = False
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


@contextmanager
def ledger(tracking_uri: str):
    """MLflow with its client, pointed at the tracking address.

    Raises:
        InputError: the address can't be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if tracking_uri.startswith("sqlite:///"):
        Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import logging

    import mlflow
    from mlflow.exceptions import MlflowException

    for chatty in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(chatty).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        yield mlflow, mlflow.MlflowClient()
    except MlflowException as error:
        # MLflow's own message may hold the address with its password; so would the chained exception.
        reason = without_secrets(str(error).splitlines()[0])
        raise InputError(f"MLflow at {without_secrets(tracking_uri)}: {reason}") from None


def experiment_of(client, name: str, tracking_uri: str) -> str:
    """The experiment's id; one in a local database keeps its artifacts beside it, not in the working folder."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    beside = None
    if tracking_uri.startswith("sqlite:///"):
        beside = (Path(tracking_uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()
    return client.create_experiment(name, artifact_location=beside)


def _version(client, name: str, key: str):
    """The registered version made of this content, if its run was finished."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((v for v in versions if v.tags.get(KEY) == key), None)


def _alias(client, name: str, alias: str, version) -> bool:
    """Point an alias at a version; says whether it pointed elsewhere."""
    if str(client.get_registered_model(name).aliases.get(alias)) == str(version):
        return False
    client.set_registered_model_alias(name, alias, str(version))
    return True


def _log(mlflow, client, experiment_id, subject, noun, files: Files, base: Base, params, metrics, key):
    # An outer run in the environment is not ours to write into.
    os.environ.pop("MLFLOW_RUN_ID", None)
    tags = {KEY: key, "subject": subject, "class": noun, "base": base.name, "base_hash": base.hash}
    with mlflow.start_run(experiment_id=experiment_id, run_name=subject, tags=tags) as run:
        mlflow.log_params(_flat(params))
        mlflow.log_metrics(metrics)
        _log_curves(client, run.info.run_id, files.curves)
        for path in (files.sheet, files.prompts, files.metrics):
            mlflow.log_artifact(str(path))
        _log_model(mlflow, subject, files, base)
    adapter = f"models:/{_logged_model(client, experiment_id, run.info.run_id)}"
    name = f"arbooth-{subject}"
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"{subject}, a {noun}, personalised with arbooth")
    return client.create_model_version(name, adapter, run.info.run_id, tags={KEY: key})


def _log_model(mlflow, subject: str, files: Files, base: Base) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "base.json"
        record.write_text(json.dumps({"name": base.name, "hash": base.hash, "record": base.record}))
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(SERVED),
            artifacts={"adapter": str(files.adapter), "base": str(record)},
            pip_requirements=["arbooth"],
        )


def _logged_model(client, experiment_id: str, run_id: str) -> str:
    models = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return models[0].model_id


def _log_curves(client, run_id: str, folder: Path) -> None:
    from mlflow.entities import Metric

    points = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            points += [Metric(f"curve/{path.stem}", float(r["value"]), 0, int(r["step"])) for r in csv.DictReader(file)]
    for start in range(0, len(points), 500):
        client.log_batch(run_id, metrics=points[start : start + 500])


def _flat(tree: dict, prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def fetch(uri: str, tracking_uri: str) -> Path:
    """Download a registered model (models:/arbooth-NAME@alias or /version); its folder.

    Raises:
        InputError: no such model, version or alias.
    """
    with ledger(tracking_uri) as (mlflow, _):
        return Path(mlflow.artifacts.download_artifacts(uri))
