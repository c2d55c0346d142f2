"""The stage table, and the one function behind all four doors.

`dvc.yaml` is checked against this table by a test; `arbooth stage NAME KEY`, `dvc repro`, the Prefect
flows and `arbooth.run` all end in `run` below.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from arbooth.errors import InputError
from arbooth.params import Params, load_params
from arbooth.settings import settings


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        over: what it runs for: each "subject", each "class", or "all" at once.
        params: the sections of the parameters that it is handed, and DVC watches.
        reads, writes: name -> path in the project; {key} is the subject or class, {class} the
            subject's class.
    """

    name: str
    over: str
    params: tuple[str, ...]
    reads: dict[str, str]
    writes: dict[str, str]


_SUBJECT = ("base", "picture", "subjects", "classes")
_TOKENS = "artifacts/tokenize/{key}.safetensors"
_ADAPTER = "artifacts/finetune/{key}.safetensors"

TABLE = {
    stage.name: stage
    for stage in (
        Stage(
            "preprocess",
            "subject",
            ("base", "picture", "subjects"),
            {"photos": "photos/{key}"},
            {"images": "artifacts/preprocess/{key}"},
        ),
        Stage(
            "tokenize",
            "subject",
            (*_SUBJECT, "templates"),
            {"images": "artifacts/preprocess/{key}"},
            {"tokens": _TOKENS},
        ),
        Stage(
            "prior",
            "class",
            ("base", "picture", "classes", "templates", "prior", "compute", "seed"),
            {},
            {"prior": "artifacts/prior/{key}.safetensors"},
        ),
        Stage(
            "finetune",
            "subject",
            (*_SUBJECT, "templates", "prior", "methods", "finetune", "compute", "seed"),
            {"tokens": _TOKENS, "prior": "artifacts/prior/{class}.safetensors"},
            {"adapter": _ADAPTER, "curves": "artifacts/curves/{key}"},
        ),
        Stage(
            "generate",
            "subject",
            (*_SUBJECT, "templates", "prompt_sets", "generate", "compute", "seed"),
            {"adapter": _ADAPTER},
            {
                "images": "artifacts/generate/{key}",
                "sheet": "artifacts/sheets/{key}.png",
                "timing": "artifacts/timing/{key}.json",
            },
        ),
        Stage(
            "evaluate",
            "subject",
            ("base", "subjects", "classes", "evaluate"),
            {
                "photos": "artifacts/preprocess/{key}",
                "images": "artifacts/generate/{key}",
                "timing": "artifacts/timing/{key}.json",
            },
            {"metrics": "artifacts/evaluate/{key}.json", "prompts": "artifacts/prompts/{key}.csv"},
        ),
        Stage(
            "summarize",
            "all",
            ("subjects", "classes"),
            {"metrics": "artifacts/evaluate", "prompts": "artifacts/prompts", "sheets": "artifacts/sheets"},
            {"table": "artifacts/summary.csv", "overall": "artifacts/summary.json", "report": "artifacts/report.html"},
        ),
        Stage(
            "publish",
            "all",
            (
                "base",
                "picture",
                "subjects",
                "classes",
                "templates",
                "prior",
                "methods",
                "finetune",
                "generate",
                "evaluate",
                "publish",
                "prompt_sets",
                "compute",
                "seed",
            ),
            {
                "adapters": "artifacts/finetune",
                "curves": "artifacts/curves",
                "sheets": "artifacts/sheets",
                "metrics": "artifacts/evaluate",
                "prompts": "artifacts/prompts",
                "report": "artifacts/report.html",
            },
            {},
        ),
    )
}


def run(
    name: str, key: str | None = None, params: Params | None = None, overrides: Sequence[str] = ()
) -> dict[str, Path]:
    """Run one stage.

    Args:
        name: of the stage.
        key: the subject or class; None for stages over all.
        params: validated parameters; read from params.yaml if not given.
        overrides: `key=value` pairs, where params.yaml is read.

    Returns:
        The paths that it wrote, by name.

    Raises:
        InputError: unknown stage or key, missing or stale inputs, or the stage's own complaints.
    """
    if name not in TABLE:
        raise InputError(f"no stage {name!r}: one of {', '.join(TABLE)}")
    stage, project = TABLE[name], settings().project
    if params is None:
        params = load_params(project / "params.yaml", key if stage.over == "subject" else None, overrides)
    reads, writes = paths(stage, key, params)
    for where in reads.values():
        if not where.exists():
            raise InputError(f"{where} is not there: run `dvc repro`, or the stage before {name}")
    module = import_module(f"arbooth.stages.{name}")
    sections = SimpleNamespace(**{section: getattr(params, section) for section in stage.params})
    with _alone(project, f"{name}@{key}" if key else name):
        module.run(sections, key, reads, writes)
    return writes


def paths(stage: Stage, key: str | None, params: Params) -> tuple[dict[str, Path], dict[str, Path]]:
    """Absolute paths that a stage reads and writes for a key.

    Raises:
        InputError: the key is missing, superfluous or unknown.
    """
    known = {"subject": params.subjects, "class": params.classes, "all": {}}[stage.over]
    if stage.over == "all" and key is not None:
        raise InputError(f"stage {stage.name} runs for all at once: leave {key!r} away")
    if stage.over != "all" and key not in known:
        raise InputError(
            f"stage {stage.name} runs for one {stage.over} (known: {', '.join(known) or 'none'}), not {key!r}"
        )
    class_name = params.subjects[key].class_name if stage.over == "subject" else ""
    project = settings().project.absolute()
    fill = {"key": key, "class": class_name}
    reads = {n: project / where.format(**fill) for n, where in stage.reads.items()}
    return reads, {n: project / where.format(**fill) for n, where in stage.writes.items()}


@contextmanager
def _alone(project: Path, what: str) -> Iterator[None]:
    """Hold a lock: a stage orphaned by a killed `dvc` goes on writing, and must not get company."""
    folder = project / ".arbooth" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / what).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise InputError(f"{what} is already running as process {owner}: wait for it, or end it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
