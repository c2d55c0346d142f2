"""MLflow at an address: a client of its own for every caller, without MLflow's global state."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import whole_file
from arbooth.errors import InputError
from arbooth.settings import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"


@contextmanager
def ledger(tracking_uri: str, existing: bool = False) -> Iterator[MlflowClient]:
    """A client of the tracking server and registry at an address.

    Args:
        existing: a database of one file that is not there is refused, not made: who only reads has nothing to read.

    Raises:
        InputError: the address can't be used, or MLflow refuses something there.
    """
    where = f"MLflow at {without_secrets(tracking_uri)}"
    if existing and tracking_uri.startswith(SQLITE) and not Path(tracking_uri.removeprefix(SQLITE)).exists():
        raise InputError(f"{where} has nothing yet: run `dvc repro`, or set MLFLOW_TRACKING_URI to where something is")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    for chatty in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        with _opening(tracking_uri):
            client = mlflow.MlflowClient(tracking_uri, tracking_uri)
            client.search_experiments(max_results=1)
    except ModuleNotFoundError as error:
        raise InputError(f"{where} needs {error.name}: run `pip install 'arbooth[postgres]'`") from None
    except Exception as error:  # a wrong address has another exception in every layer below
        # MLflow's own message may hold the address with its password; so would the chained exception.
        raise InputError(f"{where}: {_first_line(error)}") from None
    try:
        yield client
    except (MlflowException, SQLAlchemyError, RequestException) as error:
        raise InputError(f"{where}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return without_secrets(next(iter(str(error).splitlines()), type(error).__name__))


@contextmanager
def _opening(tracking_uri: str) -> Iterator[None]:
    """Alone, where a database of one file may have to be made: two that make it at once are in each other's way."""
    if not tracking_uri.startswith(SQLITE):
        if "://" in tracking_uri and not tracking_uri.startswith(("http://", "https://", "file://")):
            from sqlalchemy import create_engine

            # A database that is away: MLflow itself would go on trying, for longer and longer, without a word.
            os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # seconds; libpq's own, and so MLflow's as well
            engine = create_engine(tracking_uri)
            engine.connect().close()
            engine.dispose()
        yield
        return
    import mlflow
    from filelock import FileLock

    database = Path(tracking_uri.removeprefix(SQLITE))
    if not database.name:
        raise ValueError("the address names no file: write sqlite:////absolute/path/mlflow.db")
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.opening"):
        if not database.exists():
            # Made aside: MLflow can't open a database again whose making was killed in between.
            with whole_file(database) as part:
                mlflow.MlflowClient(f"{SQLITE}{part}").search_experiments(max_results=1)
        yield


def artifacts_of(tracking_uri: str, folder: Path) -> str | None:
    """Where a new experiment keeps its files: beside a database of one file, in a folder for one on a network, and
    where it likes for a server. MLflow's own choice would be the working folder.
    """
    if tracking_uri.startswith(SQLITE):
        return (Path(tracking_uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts").as_uri()
    return None if tracking_uri.startswith(("http://", "https://")) else folder.absolute().as_uri()


def experiment_of(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The experiment's id; a new one keeps its files at `artifacts`.

    Raises:
        InputError: it was deleted, or its artifacts are where this database is no more.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        # MLflow's page opens an experiment on its runs, not on traces of chats, where it is of this kind.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return client.create_experiment(name, artifact_location=artifacts, tags=tags)
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"the MLflow experiment {name!r} was deleted: run `mlflow experiments restore -x {found.experiment_id}`, "
            "or set publish.experiment to another name"
        )
    kept = found.artifact_location
    if kept.startswith("file:") and kept != artifacts and not Path(kept.removeprefix("file://")).is_dir():
        raise InputError(
            f"MLflow's database says that its artifacts lie in {kept}, which is not there: the project was moved. "
            "Run `arbooth doctor --fix`, which tells the database where they are"
        )
    return found.experiment_id


def has_artifacts(source: str, tracking_uri: str) -> bool:
    """Whether a registered version's files are where the registry says."""
    import mlflow

    try:
        return bool(mlflow.artifacts.list_artifacts(artifact_uri=source, tracking_uri=tracking_uri))
    except Exception:  # every store has its own way to say no
        return False


def lost_versions(tracking_uri: str, names: list[str]) -> list[str]:
    """Registered versions with an alias whose files are not there, as "NAME version N"."""
    with ledger(tracking_uri, existing=True) as client:
        models = [m for name in names for m in client.search_registered_models(f"name = '{name}'")]
        versions = {(m.name, str(number)) for m in models for number in m.aliases.values()}
        return [
            f"{name} version {number}"
            for name, number in sorted(versions)
            if not has_artifacts(client.get_model_version(name, number).source, tracking_uri)
        ]


def follow_move(tracking_uri: str) -> list[str]:
    """Tell a local database whose folder was moved where its artifacts are now; returns the old places.

    MLflow records absolute paths and has no call to change them.
    """
    if not tracking_uri.startswith(SQLITE) or not Path(tracking_uri.removeprefix(SQLITE)).is_file():
        return []
    from sqlalchemy import create_engine, inspect, text

    now = (Path(tracking_uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts").as_uri()
    engine = create_engine(tracking_uri)
    with engine.begin() as connection:
        found = connection.execute(text("SELECT DISTINCT artifact_location FROM experiments")).scalars().all()
        moved = [old for old in found if old and old.endswith("/mlartifacts") and old != now]
        moved = [old for old in moved if not Path(old.removeprefix("file://")).is_dir()]
        for table in inspect(engine).get_table_names() if moved else ():
            for column in inspect(engine).get_columns(table):
                if str(column["type"]).startswith(("VARCHAR", "TEXT")):
                    name = column["name"]
                    swap = text(
                        f'UPDATE "{table}" SET "{name}" = replace("{name}", :old, :now) WHERE "{name}" LIKE :like'
                    )
                    for old in moved:
                        connection.execute(swap, {"old": old, "now": now, "like": f"{old}%"})
    return moved


def fetch(uri: str, tracking_uri: str) -> Path:
    """Download a registered model (models:/NAME@alias or models:/NAME/version); its folder.

    Raises:
        InputError: no such model, version or alias.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if not found:
        raise InputError(f"{uri} names no registered model: write models:/arbooth-NAME@champion, or /VERSION")
    name, alias, number = found.groups()
    with ledger(tracking_uri, existing=True) as client:
        import mlflow

        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        # By its place: MLflow would look up `models:/...` at the address of another caller.
        source = client.get_model_version_download_uri(name, version.version)
        return Path(mlflow.artifacts.download_artifacts(source, tracking_uri=tracking_uri))
