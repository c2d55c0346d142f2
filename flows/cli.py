"""`arbooth fleet`: the commands over `flows.deploy`, `flows.work` and `flows.fleet`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Many subjects on several machines: deploy, work, run, status, collect.", no_args_is_help=True)
Pool = Annotated[str, typer.Option(help="Prefect work pool of type process")]
Only = Annotated[str, typer.Option(help="pattern of subjects' names, say 'cat-*'")]


@app.command("deploy")
def deploy_(
    pool: Pool = "gpu",
    here: Annotated[bool, typer.Option(help="work from this checkout as it stands, remotes or not")] = False,
) -> None:
    """A deployment for every subject and class of params.yaml; those of subjects that are gone are removed."""
    from flows.deploy import deploy, lines_of

    _say(lines_of(deploy(pool, here)))


@app.command("work")
def work_(
    pool: Pool = "gpu", name: Annotated[str, typer.Option(help="of the worker [this machine's and the GPU's]")] = ""
) -> None:
    """Work on this machine for the fleet, until it is ended; says first what the machine lacks."""
    from flows.work import work

    work(pool, name, typer.echo)


@app.command("run")
def run_(
    only: Only = "*",
    changed: Annotated[
        bool, typer.Option("--changed", help="only what was not made of the same inputs before")
    ] = False,
    priority: Annotated[int, typer.Option(help="1 comes first, 3 last")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be started")] = False,
) -> None:
    """Start every deployed subject that matches and is not at work already."""
    from flows.fleet import run

    _say(run(only, changed, priority, dry_run))


@app.command("status")
def status_(only: Only = "*") -> None:
    """A table: state, where, since when, stage and progress, last error, registered version and champion."""
    from flows.fleet import status, table

    _say(table(status(only)))


@app.command("collect")
def collect_(only: Only = "*") -> None:
    """Bring every subject's results into this checkout, and write the report."""
    from flows.fleet import collect

    _say(collect(only))


@app.command("cancel")
def cancel_(only: Only = "*") -> None:
    """End the runs of the subjects that match."""
    from flows.fleet import cancel

    _say(cancel(only))


@app.command("retry")
def retry_(only: Only = "*") -> None:
    """Run again what failed, crashed or was cancelled."""
    from flows.fleet import retry

    _say(retry(only))


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
