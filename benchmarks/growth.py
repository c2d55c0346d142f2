"""What DVC costs one subject in a project of many: python -m benchmarks.growth PROJECT [--subjects 200].

PROJECT holds one finished subject (say, this repository after `make demo`). It is copied to a temporary folder with
that subject's outputs, linked, under many names: nothing is trained, so DVC's own work is all that is timed. It is
timed twice, in turn: with a dvc.yaml and a lock for each subject, and with the same stages in one file, and so one
lock, for all.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from arbooth.creating import create
from arbooth.edits import add_entry, only
from arbooth.graph import SUBJECT_STAGES, TABLE, fill, target
from arbooth.project import Project


def grown(source: Project, folder: Path, count: int) -> tuple[Project, list[str]]:
    """A project of `count` finished subjects, each a copy of the first one of `source`."""
    params = source.params()
    first = next(iter(params.subjects))
    class_name, entry = params.class_of(first), params.subjects[first].model_dump(by_alias=True)
    names = [first, *(f"{first}-{number:04d}" for number in range(1, count))]
    text = only(source.params_file.read_text(encoding="utf-8"), "subjects", {first})
    for name in names[1:]:
        text = add_entry(text, "subjects", name, entry)
    project = create(folder, text, home=source.home, cache=source.cache())
    for class_file in ("dvc.lock",):
        shutil.copy(source.root / "classes" / class_name / class_file, folder / "classes" / class_name / class_file)
    _link(source.root / "artifacts" / "prior", folder / "artifacts" / "prior")
    lock = (source.root / "subjects" / first / "dvc.lock").read_text(encoding="utf-8")
    paths = {where for name in SUBJECT_STAGES for where in (*TABLE[name].reads.values(), *TABLE[name].writes.values())}
    for name in names:
        (folder / "subjects" / name / "dvc.lock").write_text(_renamed(lock, first, name), encoding="utf-8")
        for where in paths:
            _link(source.root / fill(where, first, class_name), folder / fill(where, name, class_name))
    project.write_stamp()
    return project, names


def in_one_file(project: Project, folder: Path) -> Path:
    """The same project with every subject's stages in one dvc.yaml, and one lock."""
    shutil.copytree(project.root, folder, copy_function=os.link, ignore=shutil.ignore_patterns("tmp", ".git"))
    stages, locked = {}, {}
    for path in sorted(folder.glob("subjects/*/dvc.yaml")):
        name = path.parent.name
        for stage, body in yaml.safe_load(path.read_text())["stages"].items():
            body.pop("wdir")
            stages[f"{stage}-{name}"] = body
        for stage, body in yaml.safe_load(path.with_name("dvc.lock").read_text())["stages"].items():
            locked[f"{stage}-{name}"] = body
    shutil.rmtree(folder / "subjects")
    for name, content in (("dvc.yaml", {"stages": stages}), ("dvc.lock", {"schema": "2.0", "stages": locked})):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def _renamed(text: str, first: str, name: str) -> str:
    return "\n".join(
        line.replace(f"/{first}", f"/{name}").replace(f" {first}", f" {name}").replace(f".{first}.", f".{name}.")
        for line in text.split("\n")
    )


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)


def cpu_seconds(folder: Path, *arguments: str) -> float:
    """User and system seconds of a DVC command that finds nothing to do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"dvc {' '.join(arguments)} in {folder} found something to do:\n{done.stdout}{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="a project whose first subject is finished")
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.project.parent) as folder:
        project, names = grown(Project(given.project), Path(folder) / "each", given.subjects)
        one = in_one_file(project, Path(folder) / "one")
        last = names[-1]
        print(f"{given.subjects} subjects, CPU seconds, median of {given.repeat}; the lock of one subject is "
              f"{(project.root / 'subjects' / last / 'dvc.lock').stat().st_size / 1e3:.0f} kB, of all "
              f"{(one / 'dvc.lock').stat().st_size / 1e6:.1f} MB")  # fmt: skip
        print(f"{'':<28}{'a lock each':>14}{'one lock':>12}{'ratio':>8}")
        for words in (("status", "-q"), ("repro", "-q", "--single-item")):
            each, single = [], []
            for _ in range(given.repeat):
                each.append(cpu_seconds(project.root, *words, target("preprocess", last)))
                single.append(cpu_seconds(one, *words, f"preprocess-{last}"))
            a, b = statistics.median(each), statistics.median(single)
            print(f"dvc {' '.join(words):<24}{a:>14.2f}{b:>12.2f}{b / a:>8.1f}")


if __name__ == "__main__":
    main()
