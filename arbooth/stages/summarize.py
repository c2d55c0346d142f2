"""Every subject's metrics -> one table, an index with thumbnails and a page for each subject beside the sheets."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from arbooth.data.files import read_numbers, read_table, whole_file, whole_folder, write_json
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
    metrics = {subject: read_numbers(reads["metrics"] / f"{subject}.json") for subject in subjects}
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
            "prompts": read_table(reads["prompts"] / f"{subject}.csv"),
        }
        for subject in metrics
    ]
    page = _template()
    with whole_folder(job.writes["report"]) as folder:
        pages = folder / "subjects"
        pages.mkdir()
        for subject in shown:
            shutil.copy(reads["thumbnails"] / f"{subject['name']}.jpg", pages)
            text = page.render(page="subject", subject=subject)
            (pages / f"{subject['name']}.html").write_text(text, encoding="utf-8")
        text = page.render(page="index", columns=columns, subjects=shown, overall=overall)
        (folder / "index.html").write_text(text, encoding="utf-8")


def _template():
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = _short
    return environment.from_string(PAGE.read_text(encoding="utf-8"))


def _short(value) -> str:
    """A number to three digits; words as they are, nothing as nothing."""
    try:
        return f"{float(value):.3f}"
    except (TypeError, ValueError):
        return str(value or "")
