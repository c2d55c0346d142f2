"""The results page: prose by hand, every table and plot between its marks written from measured files.

    <!-- table BENCHMARK/STUDY: METRIC, METRIC -->                              ...   <!-- end -->
    <!-- subjects BENCHMARK/STUDY: METRIC of SETTING, METRIC of SETTING -->      ...   <!-- end -->
    <!-- plot BENCHMARK/STUDY: METRIC, METRIC -->                               ...   <!-- end -->
    <!-- csv BENCHMARK/NAME: COLUMN, COLUMN -->                                 ...   <!-- end -->

A metric `way NAME` is how far a setting is from floor (0) to ceiling (1) in NAME; `NAME vs SETTING` is by how much it
is above that setting on the same subjects. Both go together: `way NAME vs SETTING`.
"""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path

import numpy as np

from arbooth.benchmark.score import ANCHORS, CEILING, FLOOR
from arbooth.benchmark.statistics import draws
from arbooth.data.files import read_json, whole_file
from arbooth.errors import InputError

OPENING = r"<!-- (table|subjects|plot|csv) (\S+)/(\S+): (.+?) -->\n"
BLOCK = re.compile(OPENING + r"((?:(?!<!-- ).)*?)<!-- end -->", re.DOTALL)


def write_results(page: Path, benchmarks: Path) -> int:
    """Renew every block of a page from the files BENCHMARK/results/STUDY.json; returns how many there are.

    Raises:
        InputError: no such page, or a study or metric that was not measured.
    """
    if not page.is_file():
        raise InputError(f"{page} is not there: it holds the prose and the marks of tables and plots")
    count = 0

    def renewed(match: re.Match) -> str:
        nonlocal count
        count += 1
        kind, benchmark, study, metrics = match[1], match[2], match[3], [m.strip() for m in match[4].split(",")]
        results = benchmarks / benchmark / "results"
        if kind == "csv":
            body = _columns(results / f"{study}.csv", metrics)
        else:
            measured = _measured(results, study)
            writers = {"table": table, "subjects": by_subject, "plot": partial(_plot, page, benchmark, study)}
            body = writers[kind](measured, metrics)
        return f"<!-- {kind} {benchmark}/{study}: {match[4]} -->\n{body}\n<!-- end -->"

    before = page.read_text(encoding="utf-8")
    for mark in re.findall(r"<!-- .*? -->", before):
        if mark != "<!-- end -->" and not re.fullmatch(OPENING, mark + "\n"):
            raise InputError(f"{page} has the mark {mark}, which is none of table, subjects, plot and csv: mend it")
    if len(re.findall(OPENING, before)) != len(BLOCK.findall(before)):
        raise InputError(f"{page} has a table, plot or csv without its <!-- end -->")
    text = BLOCK.sub(renewed, before)
    with whole_file(page) as part:
        part.write_text(text, encoding="utf-8")
    return count


def _measured(results: Path, study: str) -> dict[str, dict]:
    path = results / f"{study}.json"
    if not path.is_file():
        raise InputError(
            f"{path} is not there: run `arbooth benchmark {results.parent.name} --study NAME [--subjects N]`, "
            "which writes NAME.json or NAME-first-N.json"
        )
    return {row["setting"]: row["metrics"] for row in read_json(path)}


def _columns(path: Path, columns: list[str]) -> str:
    """Some columns of a table that `arbooth analyze --out` wrote, as Markdown."""
    if not path.is_file():
        raise InputError(
            f"{path} is not there: write it with `arbooth analyze {path.stem} SUBJECTS --out {path.parent}`"
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for column in columns:
        if not rows or column not in rows[0]:
            raise InputError(f"{path} has no column {column!r}")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_short(row[c]) for c in columns) + " |" for row in rows])


def _short(text: str) -> str:
    """A cell; numbers with a fraction get three digits."""
    return f"{float(text):.3g}" if re.fullmatch(r"-?\d*\.\d+", text) else text


def value(measured: dict[str, dict], setting: str, metric: str) -> dict | None:
    """Mean, low and high of one setting, of its way from floor to ceiling, or of its difference from another.

    None where it has none. Intervals draw the same subjects for everything that is compared.

    Raises:
        InputError: the way is asked of a metric that an anchor lacks, or where the anchors agree; the difference is
            asked from a setting that is not there, or that was measured on other subjects.
    """
    name, _, other = metric.partition(" vs ")
    if other and other not in measured:
        raise InputError(f"there is no setting {other!r} to compare with (known: {', '.join(measured)})")
    if metric in measured[setting]:
        return measured[setting][metric]
    plain = name.removeprefix("way ")
    asked, anchors = [setting, other] if other else [setting], [FLOOR, CEILING] if name != plain else []
    if any(plain not in measured[one] for one in asked):
        return None
    if any(plain not in measured[one] for one in anchors):
        raise InputError(f"there is no way in {plain!r}: it needs a floor and a ceiling that differ")
    if len({tuple(sorted(measured[one][plain]["subjects"])) for one in asked + anchors}) > 1:
        raise InputError(f"{', '.join(asked + anchors)} were measured on other subjects: run the study again")
    samples = _samples(measured, setting, name) - (_samples(measured, other, name) if other else 0.0)
    low, high = np.quantile(samples[1:], (0.025, 0.975))
    return {"mean": float(samples[0]), "low": float(low), "high": float(high)}


def _samples(measured: dict[str, dict], setting: str, metric: str) -> np.ndarray:
    """Means of a metric, or of the way in it: over all subjects, then over each of the bootstrap's draws of them."""
    name = metric.removeprefix("way ")

    def means(one: str) -> np.ndarray:
        subjects = measured[one][name]["subjects"]
        chosen = np.vstack([np.arange(len(subjects)), draws(len(subjects))])
        return np.array([subjects[subject] for subject in sorted(subjects)])[chosen].mean(1)

    if name == metric:
        return means(setting)
    floor, ceiling = means(FLOOR), means(CEILING)
    if floor[0] == ceiling[0]:
        raise InputError(f"there is no way in {name!r}: it needs a floor and a ceiling that differ")
    return (means(setting) - floor) / (ceiling - floor)


def table(measured: dict[str, dict], metrics: list[str]) -> str:
    """Markdown: a row per setting, a column per metric, each mean with its 95% interval."""
    for metric in metrics:
        if not any(value(measured, setting, metric) for setting in measured):
            raise InputError(f"no setting has the metric {metric!r}")
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for setting in measured:
        cells = [_cell(value(measured, setting, metric)) for metric in metrics]
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_subject(measured: dict[str, dict], columns: list[str]) -> str:
    """Markdown: a row per subject, a column per `METRIC of SETTING`, each the subject's own mean.

    Raises:
        InputError: no such setting, or it lacks the metric.
    """
    shown = {}
    for column in columns:
        metric, _, setting = column.partition(" of ")
        if metric not in measured.get(setting, {}):
            raise InputError(f"{column!r} was not measured: name METRIC of SETTING (settings: {', '.join(measured)})")
        shown[column] = measured[setting][metric]["subjects"]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for subject in sorted(set().union(*shown.values())):
        cells = [f"{values[subject]:.3f}" if subject in values else "" for values in shown.values()]
        lines.append(f"| {subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(measured: dict | None) -> str:
    if not measured:
        return ""
    known = measured.get("subjects") != {}  # a paper says no interval
    return f"{measured['mean']:.3f}" + (f" ({measured['low']:.3f} to {measured['high']:.3f})" if known else "")


def _plot(page: Path, benchmark: str, study: str, measured: dict[str, dict], metrics: list[str]) -> str:
    from matplotlib.figure import Figure

    settings = [name for name in measured if name not in ANCHORS]
    figure = Figure(figsize=(6.4, 3.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for number, metric in enumerate(metrics):
        values = [value(measured, name, metric) for name in settings]
        if not all(values):
            raise InputError(f"study {study!r} has settings without the metric {metric!r}")
        means = [one["mean"] for one in values]
        # A bootstrap's bounds may lie on one side of a skewed mean.
        errors = [
            [max(0, one["mean"] - one["low"]) for one in values],
            [max(0, one["high"] - one["mean"]) for one in values],
        ]
        places = np.arange(len(values)) + 0.06 * (number - (len(metrics) - 1) / 2)  # so that no interval hides another
        axes.errorbar(places, means, errors, marker="o", capsize=3, label=metric)
    axes.set_xticks(range(len(settings)), settings)
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(metrics), fontsize=8)
    words = "-".join(re.sub("[^a-z0-9]+", "-", metric.lower()).strip("-") for metric in metrics)
    image = page.with_suffix("") / f"{benchmark}-{study}-{words}.png"
    with whole_file(image) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
    return f"![{study}: {', '.join(metrics)}]({page.stem}/{image.name})"
