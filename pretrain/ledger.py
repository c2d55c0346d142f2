"""Where a training of the base is logged: one MLflow run a step of the recipe, resumed with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXPERIMENT = "pretrain"


class Ledger:
    """An MLflow run that goes on when its training does; its id lies beside the resume file.

    Args:
        path: the resume file; the run has its name.
        params: what to log of params.yaml.
    """

    def __init__(self, path: Path, params: dict) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path.parent.absolute() / 'mlflow.db'}"
        self.client, self.mark = mlflow.MlflowClient(uri), path.with_suffix(".run")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and self.mark.exists():
            self.run = self.mark.read_text()
            self.client.update_run(self.run, "RUNNING")
            return
        known = self.client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self.client.create_experiment(EXPERIMENT)
        self.run = self.client.create_run(experiment, run_name=path.stem).info.run_id
        self.mark.write_text(self.run)
        for name, value in params.items():
            self.client.log_param(self.run, name, value)

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
def logged(path: Path, params: dict, *sheets: Path) -> Iterator[Ledger]:
    """A ledger for one training, closed whatever happens."""
    ledger = Ledger(path, params)
    try:
        yield ledger
    except BaseException:
        ledger.finish("KILLED", sheets)
        raise
    ledger.finish("FINISHED", sheets)
