"""Every subject's metrics -> one table and one page."""

from __future__ import annotations

import base64
import csv
import html

from arbooth.data.files import read_json, whole_file, write_json
from arbooth.errors import InputError
from arbooth.metrics.scores import mean

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}
tr.overall td{font-weight:600;border-top:2px solid #888}img{max-width:100%}.wide{overflow-x:auto}"""


def run(params, key, reads, writes) -> None:
    missing = [subject for subject in params.subjects if not (reads["metrics"] / f"{subject}.json").is_file()]
    if missing:
        raise InputError(f"not evaluated yet: {', '.join(missing)}; run `dvc repro`")
    metrics = {subject: read_json(reads["metrics"] / f"{subject}.json") for subject in params.subjects}
    columns = list(dict.fromkeys(name for row in metrics.values() for name in row))
    overall = {name: mean([row.get(name) for row in metrics.values()]) for name in columns}
    with whole_file(writes["table"]) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "class", *columns])
        for subject, row in metrics.items():
            noun = params.classes[params.subjects[subject].class_name].noun
            writer.writerow([subject, noun, *(row.get(name, "") for name in columns)])
    write_json(writes["overall"], {name: round(value, 6) for name, value in overall.items()})
    with whole_file(writes["report"]) as part:
        part.write_text(_page(params, metrics, columns, overall, reads), encoding="utf-8")


def _page(params, metrics, columns, overall, reads) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["subject", *columns])
    body = "".join(_row(html.escape(subject), row, columns) for subject, row in metrics.items())
    body += _row(f"overall ({len(metrics)})", overall, columns, ' class="overall"')
    sections = []
    for subject in metrics:
        noun = params.classes[params.subjects[subject].class_name].noun
        sheet = base64.b64encode((reads["sheets"] / f"{subject}.png").read_bytes()).decode()
        title = html.escape(f"{subject} ({noun})")
        sections.append(
            f'<h2>{title}</h2>\n<img alt="contact sheet of {title}" src="data:image/png;base64,{sheet}">\n'
            f"{_prompts(reads['prompts'] / f'{subject}.csv')}"
        )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>arbooth report</title>\n<style>{_STYLE}</style></head>\n'
        f'<body><h1>Personalised subjects</h1>\n<div class="wide"><table><tr>{head}</tr>{body}</table></div>\n'
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _row(label: str, row: dict, columns: list[str], attributes: str = "") -> str:
    cells = "".join(f"<td>{row[name]:.3f}</td>" if row.get(name) is not None else "<td></td>" for name in columns)
    return f"<tr{attributes}><td>{label}</td>{cells}</tr>"


def _prompts(path) -> str:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [n for n in rows[0] if n not in ("kind", "images")]
    head = "".join(f"<th>{html.escape(n)}</th>" for n in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_short(row[n]))}</td>" for n in names) + "</tr>" for row in rows)
    return (
        f'<details><summary>per prompt</summary><div class="wide"><table><tr>{head}</tr>{body}</table></div></details>'
    )


def _short(value: str) -> str:
    try:
        return f"{float(value):.3f}"
    except ValueError:
        return value
