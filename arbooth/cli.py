"""The commands. Each is a few lines over a function that Python callers use as well."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from arbooth.benchmark.cli import analyses
from arbooth.errors import InputError, printable
from arbooth.graph import STAMP_STAGE, TABLE
from arbooth.recipes import names
from arbooth.terminal import project_here, say, short
from flows.cli import app as fleet

app = typer.Typer(
    help="Personalise a visual autoregressive model with a few photos of one subject.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
subjects = typer.Typer(help="Add, list and remove subjects in params.yaml.", no_args_is_help=True)
bases = typer.Typer(help="Import and list base models.", no_args_is_help=True)
adapters = typer.Typer(help="Make an adapter smaller.", no_args_is_help=True)
registry = typer.Typer(help="Publish one subject, and say which version serves.", no_args_is_help=True)
app.add_typer(registry, name="registry")
app.add_typer(adapters, name="adapter")
app.add_typer(analyses, name="analyze")
app.add_typer(subjects, name="subject")
app.add_typer(bases, name="base")
app.add_typer(fleet, name="fleet")

# A line of a message is cut there: it may repeat what somebody handed us.
LONGEST = 600
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs, say finetune.steps=200")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="where; made if it is not there")],
    recipe: Annotated[str, typer.Option(help=", ".join(names()))] = "embedded",
) -> None:
    """Make a project: params.yaml, dvc.yaml, git and DVC."""
    from arbooth.creating import init as make

    say(make(folder, recipe))


@app.command()
def graph() -> None:
    """Write the dvc.yaml files anew, after subjects were edited by hand."""
    changed = project_here().write_graph()
    for name in changed:
        typer.echo(f"wrote {name}")
    if not changed:
        typer.echo("every dvc.yaml is as params.yaml asks")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"{', '.join([STAMP_STAGE, *TABLE][:-1])} or {list(TABLE)[-1]}")],
    key: Annotated[str | None, typer.Argument(help="the subject, or the class for `prior`")] = None,
    overrides: Overrides = None,
) -> None:
    """Run one stage of the pipeline, as dvc.yaml does."""
    from arbooth.errors import Interrupted
    from arbooth.owner import end_with_owner
    from arbooth.project import DVC_STAGE
    from arbooth.stages import run

    if DVC_STAGE in os.environ:  # typed by a person, it may outlive the terminal
        end_with_owner()
    try:
        written = run(name, key, overrides=overrides or (), project=project_here())
    except Interrupted as stopped:
        typer.echo(f"{stopped}: run the same command again to resume", err=True)
        raise typer.Exit(143) from None
    for path in written.values():
        typer.echo(f"wrote {short(path)}")


@app.command()
def generate(
    target: Annotated[str, typer.Argument(help="a subject, an adapter's file, models:/arbooth-X@champion, or `base`")],
    prompt: Annotated[str, typer.Argument(help="what to paint, with <S*> for the subject")],
    n: Annotated[int, typer.Option("-n", "--number", min=1, max=1000, help="how many pictures")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder for PNGs and contact sheet [outputs/TARGET]")] = None,
    guidance: Annotated[float | None, typer.Option(help="of text; 1 is none [as the subject was judged]")] = None,
    prompt_guidance: Annotated[float | None, typer.Option(help="toward what is beside <S*>; 0 is off [as judged]")] = None,
    temperature: Annotated[float | None, typer.Option(help="above 0; low is safe [as the subject was judged]")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="1 is greedy [as the subject was judged]")] = None,
    top_p: Annotated[float | None, typer.Option(help="in (0, 1] [as the subject was judged]")] = None,
) -> None:
    """Paint pictures of a subject from any prompt."""
    from arbooth.painting.folder import paint_to_folder
    from arbooth.registry.load import painter_of

    project = project_here()
    painter, subject = painter_of(project, target)
    given = {"guidance": guidance, "prompt_guidance": prompt_guidance, "temperature": temperature}
    given |= {"top_k": top_k, "top_p": top_p}
    folder = out or project.outputs / (subject or "base")
    files, seconds = paint_to_folder(painter, subject, prompt, n, seed, given, folder)
    for path in files:
        typer.echo(f"wrote {short(path)}")
    typer.echo(f"{seconds:.2f} s per image")


@subjects.command("add")
def subject_add(
    name: Annotated[str, typer.Argument(help="a-z, 0-9, _ and -")],
    noun: Annotated[str, typer.Option("--class", help='the class noun, say teapot or "teddy bear"')],
    photos: Annotated[Path, typer.Option(help="folder of 1 to 20 photos")],
    prompts: Annotated[str | None, typer.Option(help="a list of prompt_sets [the first one]")] = None,
    background: Annotated[str | None, typer.Option(help="keep or remove [remove from photographs on `embedded`]")] = None,
) -> None:
    """Check and copy photos, and declare the subject in params.yaml."""
    from arbooth.subjects import add_subject

    say(add_subject(project_here(), name, noun, photos, prompts, background))


@subjects.command("remove")
def subject_remove(name: Annotated[str, typer.Argument(help="as in params.yaml")]) -> None:
    """Take a subject out of params.yaml; its photos and results stay."""
    from arbooth.subjects import remove_subject

    typer.echo(remove_subject(project_here(), name))


@subjects.command("list")
def subject_list() -> None:
    """List the subjects of params.yaml."""
    params = project_here().params()
    for name in params.subjects:
        typer.echo(f"{name}\t{params.noun(name)}")


SubjectName = Annotated[str, typer.Argument(help="a subject")]
Version = Annotated[str | None, typer.Argument(help="number of a registered version")]


@adapters.command("shrink")
def adapter_shrink(
    subject: Annotated[str, typer.Argument(help="of params.yaml, fine-tuned with finetune.rank 0")],
    rank: Annotated[int, typer.Option(min=1, help="of the change that is kept")] = 16,
    out: Annotated[Path | None, typer.Option(help="file to write [outputs/SUBJECT-rankR.safetensors]")] = None,
) -> None:
    """A low-rank adapter from a full one: the largest singular values of every matrix's change."""
    from arbooth.subjects import shrink_adapter

    say(shrink_adapter(project_here(), subject, rank, out))


@registry.command("publish")
def registry_publish(
    subject: SubjectName,
    as_json: Annotated[bool, typer.Option("--json", help="print what was done as JSON")] = False,
) -> None:
    """Log and register one subject, as the stage `publish` does for all; nothing that is done already."""
    import json

    from arbooth.stages.publish import describe, publish_subject

    done = publish_subject(project_here(), subject)
    typer.echo(json.dumps(vars(done)) if as_json else describe(done))


@registry.command("promote")
def registry_promote(
    subject: SubjectName,
    version: Version = None,
    reason: Annotated[str, typer.Option(help="kept as a tag of the version")] = "by hand",
) -> None:
    """Make the candidate, or the version that is named, champion whatever its metrics."""
    from arbooth.registry.gate import promote

    typer.echo(promote(project_here().tracking_uri, subject, version, reason))


@registry.command("rollback")
def registry_rollback(
    subject: SubjectName,
    version: Version = None,
    reason: Annotated[str, typer.Option(help="kept as a tag of the version")] = "rolled back by hand",
) -> None:
    """Make the champion before the present one champion again, or the version that is named."""
    from arbooth.registry.gate import rollback

    typer.echo(rollback(project_here().tracking_uri, subject, version, reason))


@bases.command("import")
def base_import(
    path: Annotated[Path, typer.Argument(help="folder with transformer, tokenizer and T5 files")],
    name: Annotated[str, typer.Option(help="how params.yaml will call it, say infinity-2b")],
    text: Annotated[Path | None, typer.Option(help="the T5 folder, where it lies elsewhere")] = None,
    level_embedding: Annotated[
        str, typer.Option(help="first-block, or every-chunk for a checkpoint that ARBooth's published code fine-tuned")
    ] = "first-block",
) -> None:
    """Check official Infinity files and record them as a base."""
    from arbooth.data.importing import import_base

    project = project_here()
    base = import_base(path, name, project.bases, project.weights, text, level_embedding)
    size = sum(part["bytes"] for part in base.record["files"].values()) / 1e9
    config = base.config
    typer.echo(
        f"recorded bases/{name}.json: {config.depth} blocks of width {config.width}, {config.bits} bits a token, {size:.1f} GB"
    )
    typer.echo(f"use it with `base: {name}` in params.yaml")


@bases.command("list")
def base_list() -> None:
    """List the bases that are recorded here."""
    from arbooth.data.bases import load_base

    project = project_here()
    for name in project.base_names():
        base = load_base(name, project.bases, project.weights)
        typer.echo(f"{name}\t{base.hash[:12]}\t{base.config.depth} blocks of width {base.config.width}")


@app.command()
def params(overrides: Overrides = None) -> None:
    """Check params.yaml and print what it comes to."""
    checked = project_here().params(overrides=overrides or ())
    typer.echo(checked.model_dump_json(indent=1, by_alias=True))


@app.command()
def summary() -> None:
    """Print where the results lie, and every subject's metrics."""
    from arbooth.subjects import summary_lines

    say(summary_lines(project_here()))


@app.command()
def doctor(fix: Annotated[bool, typer.Option("--fix", help="mend what can be mended safely")] = False) -> None:
    """Say what is there, and what to do about what isn't."""
    from arbooth.doctor import diagnose, mend

    project = project_here()
    for line in mend(project) if fix else ():
        typer.echo(f"fixed {line}")
    rows = diagnose(project)
    for row in rows:
        typer.echo(f"{'ok  ' if row.ok else 'MISS' if row.needed else 'none'}  {row.what}: {row.found}")
        if not row.ok:
            typer.echo(f"      -> {row.remedy}")
    if any(row.needed and not row.ok for row in rows):
        raise typer.Exit(1)


@app.command()
def bench(
    steps: Annotated[int, typer.Option(min=1, help="training steps of each kind")] = 10,
    json: Annotated[Path | None, typer.Option(help="also write the numbers to this file")] = None,
    memory: Annotated[str, typer.Option(help="tell what this base needs instead, say infinity-2b")] = "",
    pixels: Annotated[str, typer.Option(help="0.06M to 1M, with --memory [as in params.yaml]")] = "",
    ratio: Annotated[float | None, typer.Option(help="height over width, with --memory [as there]")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="parameters for --memory, say finetune.rank=16")] = None,
) -> None:
    """Time an image, and a training step both ways; or tell the memory that a base needs, without having it."""
    if memory:
        from arbooth.memory import report as told

        return say(told(project_here(), memory, ratio, pixels, overrides or []))
    from arbooth.benchmark.timing import report

    say(report(project_here(), steps, json))


@app.command()
def evaluate(
    images: Annotated[Path, typer.Option(help="folder of the pictures, painted by whatever")],
    photos: Annotated[Path, typer.Option(help="folder of the subject's photos")],
    prompts: Annotated[Path, typer.Option(help="CSV of file,prompt; {subject} stands where the subject does")],
    noun: Annotated[str, typer.Option("--class", help="the subject's class noun")],
    encoders: Annotated[str, typer.Option(help="embedded, corrected or published")] = "corrected",
    out: Annotated[Path | None, typer.Option(help="folder to write prompts.csv and metrics.json to")] = None,
) -> None:
    """Measure pictures of any other method by the protocol that ours are measured by."""
    from arbooth.benchmark.foreign import evaluate_pictures

    means = evaluate_pictures(project_here(), images, photos, prompts, noun, encoders, out)
    say(f"{name:<24} {value:.3f}" for name, value in means.items())


@app.command()
def benchmark(
    name: Annotated[str, typer.Argument(help="a folder of benchmarks/, say mini; or vico or dreambench")],
    study: Annotated[str, typer.Option(help="an entry of its studies.yaml")] = "default",
    subjects: Annotated[int | None, typer.Option(min=1, help="only the first so many")] = None,
    photos: Annotated[Path | None, typer.Option(help="your copy of vico's or dreambench's photos and prompts")] = None,
    encoders: Annotated[str, typer.Option(help="with --photos: corrected, published or embedded")] = "corrected",
) -> None:
    """Personalise and score a benchmark's subjects."""
    from arbooth.benchmark.page import table
    from arbooth.benchmark.protocols import lay_out
    from arbooth.benchmark.run import results_file, run_benchmark

    project = project_here()
    if photos is not None:
        typer.echo(lay_out(project, name, photos, encoders))
    source = project.benchmarks / name
    measured = {row["setting"]: row["metrics"] for row in run_benchmark(project, source, study, subjects)}
    typer.echo(table(measured, list(dict.fromkeys(metric for metrics in measured.values() for metric in metrics))))
    typer.echo(f"wrote {short(results_file(source, study, subjects))}; sheets: {short(source / 'runs' / study)}")


@app.command()
def results(
    page: Annotated[Path, typer.Option(help="the page whose tables and plots are renewed")] = Path("docs/results.md"),
) -> None:
    """Renew the results page from what was measured."""
    from arbooth.benchmark.page import write_results

    project = project_here()
    where = (project.root / page).resolve()
    if not where.is_relative_to(project.root.resolve()):
        raise InputError(f"{page} lies outside the project {project.root}: name a page of it")
    count = write_results(where, project.benchmarks)
    typer.echo(f"wrote {page} with {count} tables and plots")


@app.command()
def version() -> None:
    """Print the version."""
    from arbooth import __version__

    typer.echo(__version__)


def main() -> None:
    """Run the command line; bad input ends with one message and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except InputError as error:
        message = str(error)
    except OSError as error:  # a full or read-only disk, a folder where a file should be
        message = f"{error.filename or 'the disk'}: {error.strerror or error}: mend that, then run the same again"
    except Exception as error:
        if not hasattr(error, "format_message"):  # of the command line itself: an unknown option, a word for a number
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            sys.exit(0)
        message = f"{error.format_message()} (see `arbooth --help`)"
    lines = (line if len(line) <= LONGEST else f"{line[:LONGEST]} ..." for line in printable(message).splitlines())
    typer.echo("error: " + "\n".join(lines), err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
