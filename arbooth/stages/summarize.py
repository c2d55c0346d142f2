"""Every subject's metrics -> one table and one page."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import read_json, read_table, whole_file, write_json
from arbooth.errors import InputError
from arbooth.metrics.scores import mean

if TYPE_CHECKING:
    from arbooth.stages.job import Job

PAGE = Path(__file__).with_name("report.html")


def run(job: Job) -> None:
    reads, subjects = job.reads, job.params.subjects
    missing = [subject for subject in subjects if not (reads["metrics"] / f"{subject}.json").is_file()]
    if missing:
        raise InputError(f"not evaluated yet: {', '.join(missing)}; run `dvc repro`")
    metrics = {subject: _metrics(reads["metrics"] / f"{subject}.json") for subject in subjects}
    columns = list(dict.fromkeys(name for row in metrics.values() for name in row))
    overall = {name: mean([row.get(name) for row in metrics.values()]) for name in columns}
    with whole_file(job.writes["table"]) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "class", *columns])
        for subject, row in metrics.items():
            writer.writerow([subject, job.params.noun(subject), *(row.get(name, "") for name in columns)])
    write_json(job.writes["overall"], {name: round(value, 6) for name, value in overall.items() if value is not None})
    shown = [
        {
            "name": subject,
            "noun": job.params.noun(subject),
            "metrics": metrics[subject],
            "sheet": base64.b64encode((reads["sheets"] / f"{subject}.png").read_bytes()).decode(),
            "prompts": read_table(reads["prompts"] / f"{subject}.csv"),
        }
        for subject in metrics
    ]
    with whole_file(job.writes["report"]) as part:
        part.write_text(_page(columns, shown, overall), encoding="utf-8")


def _page(columns: list[str], subjects: list[dict], overall: dict) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = _short
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        columns=columns, subjects=subjects, overall=overall
    )


def _metrics(path: Path) -> dict[str, float]:
    metrics = read_json(path)
    if not isinstance(metrics, dict) or not all(isinstance(value, (int, float)) for value in metrics.values()):
        raise InputError(f"{path} holds no table of numbers: run `dvc repro`, which makes it")
    return metrics


def _short(value) -> str:
    """A number to three digits; words as they are, nothing as nothing."""
    try:
        return f"{float(value):.3f}"
    except (TypeError, ValueError):
        return str(value or "")
