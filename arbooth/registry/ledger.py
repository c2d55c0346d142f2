"""MLflow at an address: a client of its own for every caller, without MLflow's global state."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.errors import InputError
from arbooth.settings import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"


@contextmanager
def ledger(tracking_uri: str) -> Iterator[MlflowClient]:
    """A client of the tracking server and registry at an address.

    Raises:
        InputError: the address can't be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if tracking_uri.startswith(SQLITE):
        Path(tracking_uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    import mlflow
    from mlflow.exceptions import MlflowException

    for chatty in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        yield mlflow.MlflowClient(tracking_uri, tracking_uri)
    except MlflowException as error:
        # MLflow's own message may hold the address with its password; so would the chained exception.
        reason = without_secrets(str(error).splitlines()[0])
        raise InputError(f"MLflow at {without_secrets(tracking_uri)}: {reason}") from None


def experiment_of(client: MlflowClient, name: str, tracking_uri: str) -> str:
    """The experiment's id; one in a local database keeps its artifacts beside it, not in the working folder."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    beside = None
    if tracking_uri.startswith(SQLITE):
        beside = (Path(tracking_uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts").as_uri()
    return client.create_experiment(name, artifact_location=beside)


def fetch(uri: str, tracking_uri: str) -> Path:
    """Download a registered model (models:/NAME@alias or models:/NAME/version); its folder.

    Raises:
        InputError: no such model, version or alias.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if not found:
        raise InputError(f"{uri} names no registered model: write models:/arbooth-NAME@champion, or /VERSION")
    name, alias, number = found.groups()
    with ledger(tracking_uri) as client:
        import mlflow

        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        # By its place: MLflow would look up `models:/...` at the address of another caller.
        source = client.get_model_version_download_uri(name, version.version)
        return Path(mlflow.artifacts.download_artifacts(source, tracking_uri=tracking_uri))
