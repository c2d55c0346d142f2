"""What a training of the base is made with, and its MLflow run: both go on when the training does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from arbooth.data.files import read_json, sha256, write_json
from arbooth.errors import InputError
from arbooth.registry.ledger import artifacts_of, experiment_of

EXPERIMENT = "pretrain"
MAY_GROW = ("steps", "decay")


def key_of(params: DictConfig, *files: Path, words: list[str] | None = None) -> str:
    """Hash of what a training depends on: its parameters but those that may grow, its inputs, its word list."""
    own = {k: v for k, v in OmegaConf.to_container(params).items() if k not in MAY_GROW}
    parts = [json.dumps([own, words], sort_keys=True), *(sha256(file) for file in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Ledger:
    """One training's MLflow run; its id and key lie beside the resume file.

    Args:
        path: the resume file; the run has its name.
        key: of `key_of`.
        go_on: go on although the key differs, say on a richer world.

    Raises:
        InputError: the resume file was trained with something else.
    """

    def __init__(self, path: Path, params: DictConfig, key: str, go_on: bool) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        mark = path.with_suffix(".json")
        kept = read_json(mark) if path.exists() and mark.exists() else {}
        if path.exists() and kept.get("key") != key and not go_on:
            raise InputError(
                f"{path} was trained with other parameters, pictures or words: delete it to start anew, "
                "or say --go-on to train it further with these"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path.parent.absolute() / 'mlflow.db'}"
        self.client = mlflow.MlflowClient(uri)
        experiment = experiment_of(self.client, EXPERIMENT, artifacts_of(uri, path.parent / "mlartifacts"))
        runs = self.client.search_runs([experiment], f"attributes.run_id = '{kept['run']}'") if "run" in kept else []
        self.run = runs[0].info.run_id if runs else self.client.create_run(experiment, run_name=path.stem).info.run_id
        self.client.update_run(self.run, "RUNNING")
        for name, value in params.items():
            if name not in MAY_GROW and not runs:
                self.client.log_param(self.run, name, value)
        write_json(mark, {"run": self.run, "key": key})

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=step)

    def finish(self, status: str, sheets: tuple[Path, ...]) -> None:
        """Keep the last sheets of samples and close the run."""
        for sheet in sheets:
            if sheet.exists():
                self.client.log_artifact(self.run, str(sheet))
        self.client.set_terminated(self.run, status)


@contextmanager
def logged(path: Path, params: DictConfig, key: str, go_on: bool, *sheets: Path) -> Iterator[Ledger]:
    """A ledger for one training, closed whatever happens."""
    ledger = Ledger(path, params, key, go_on)
    try:
        yield ledger
    except BaseException as error:
        ledger.finish("FAILED" if isinstance(error, Exception) else "KILLED", sheets)
        raise
    ledger.finish("FINISHED", sheets)
