"""The commands of `arbooth analyze`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arbooth.errors import InputError
from arbooth.terminal import project_here, short

analyses = typer.Typer(help="Which layers move in fine-tuning, and what each scale holds.", no_args_is_help=True)
Analysed = Annotated[list[str], typer.Argument(help="of params.yaml, with the caches that `dvc repro` makes")]
Changed = Annotated[list[str], typer.Argument(help="of params.yaml, with the caches that `dvc repro` makes; and parameters to set, say finetune.rank=0")]
Beside = Annotated[Path | None, typer.Option(help="folder of table and plot [outputs/SUBJECTS]")]


@analyses.command("layers")
def analyze_layers(subjects: Changed, out: Beside = None) -> None:
    """Tune every layer: how far does each kind move?"""
    from arbooth.benchmark.analyses import layer_changes, plot_layers

    overrides = [word for word in subjects if "=" in word]
    named = [word for word in subjects if "=" not in word]
    _analyze(partial(layer_changes, overrides=overrides), plot_layers, named, out, "layers")


@analyses.command("scales")
def analyze_scales(subjects: Analysed, out: Beside = None) -> None:
    """Replace the bits of some scales: what is left?"""
    from arbooth.benchmark.analyses import plot_scales, scale_changes

    _analyze(scale_changes, plot_scales, subjects, out, "scales")


def _analyze(measure, plot, subjects: list[str], out: Path | None, name: str) -> None:
    from arbooth.benchmark.analyses import over_subjects
    from arbooth.data.files import write_table

    if not subjects:
        raise InputError("name at least one subject of params.yaml")
    project = project_here()
    folder = out or project.outputs / "+".join(subjects)
    rows = over_subjects(project, measure, subjects)
    write_table(folder / f"{name}.csv", rows)
    plot(folder / f"{name}.png", rows)
    for row in rows:
        typer.echo("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    for end in ("csv", "png"):
        typer.echo(f"wrote {short(folder / f'{name}.{end}')}")
