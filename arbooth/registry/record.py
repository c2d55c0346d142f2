"""What MLflow keeps of one published subject: its run, and its model."""

from __future__ import annotations

import csv
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.closure import PACKAGE
from arbooth.data.adapters import read_adapter, write_adapter
from arbooth.data.files import read_fields, read_numbers, write_json
from arbooth.data.manifest import MANIFEST

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from arbooth.registry.publish import Entry

SERVED = Path(__file__).with_name("served.py")
# What painting needs of the package's dependencies.
NEEDED = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pillow",
    "pydantic",
    "pydantic-settings",
    "omegaconf",
    "pyyaml",
    "filelock",
    "tqdm",
    "mlflow",
)


def log_run(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Parameters, metrics, curves, pictures, samples, photos and DVC's records of a subject."""
    from mlflow.entities import Metric, Param

    now, files = int(time.time() * 1000), entry.files
    values = [Metric(name, value, now, 0) for name, value in read_numbers(files.metrics).items()] + _curves(
        files.curves
    )
    entries = [Param(name, value) for name, value in _flat(entry.params).items()]
    for start in range(0, len(entries), 100):
        client.log_batch(run_id, params=entries[start : start + 100])
    for start in range(0, len(values), 500):
        client.log_batch(run_id, metrics=values[start : start + 500])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in (files.sheet, files.prompts, files.metrics):
            shutil.copy(path, folder)
        (folder / "photos").mkdir()
        for path in files.images.glob("*.png"):
            shutil.copy(path, folder / "photos")
        shutil.copy(files.samples, folder / "samples.png")
        for name, text in entry.origin.locks.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        client.log_artifacts(run_id, str(folder))
    client.log_inputs(run_id, [_dataset(entry)])


def log_model(client: MlflowClient, model: LoggedModel, entry: Entry) -> None:
    """The adapter with how it was judged in its header, a reference to its base, and the code that paints."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder, _code() as code:
        kept, record = Path(folder) / "adapter.safetensors", Path(folder) / "base.json"
        judged = read_adapter(entry.files.adapter, entry.subject)
        write_adapter(kept, replace(judged, settings={**judged.settings, "sampling": entry.sampling}))
        write_json(record, {"name": entry.base.name, "hash": entry.base.hash, "record": entry.base.record})
        mlflow.pyfunc.save_model(
            str(Path(folder) / "model"),
            python_model=str(SERVED),
            artifacts={"adapter": str(kept), "base": str(record)},
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={version(name)}" for name in NEEDED],
            # A signature would make MLflow drop the names that it does not know without a word: `served` refuses them.
            signature=False,
        )
        example = [{"prompt": f"a photo of <S*> {entry.noun}", "n": 1, "seed": 0}]
        write_json(Path(folder) / "model" / "input_example.json", {"inputs": example})
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(model.model_id, "READY")


@contextmanager
def _code() -> Iterator[Path]:
    """The package without the base that it carries: another environment paints with it, given the base."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, code, ignore=shutil.ignore_patterns("__pycache__", "embedded"))
        yield code


def _dataset(entry: Entry):
    """The subject's photos as MLflow's dataset."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest = read_fields(entry.files.images / MANIFEST, digest=str, photos=list)
    where = f'{{"uri": "photos/{entry.subject}"}}'
    profile = f'{{"num_rows": {len(manifest["photos"])}}}'
    dataset = Dataset(f"photos of {entry.subject}", manifest["digest"][:36], "local", where, None, profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


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
