"""Benchmarks: many subjects through the same DVC stages, scored between two anchors, with intervals.

A benchmark is a folder: params.yaml (subjects like any user's, and what else it sets), photos/, held/ (what a
perfect painter would make of every prompt: the ceiling), drawings.json (which drawing each subject is) and
studies.yaml (what differs in each setting that is compared). One without drawings is a paper's (protocols.py).
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from arbooth.benchmark.protocols import PROTOCOLS, EncoderScorer
from arbooth.benchmark.score import ANCHORS, DRAWINGS, Scorer
from arbooth.benchmark.statistics import summed
from arbooth.creating import copy_bases, create, link_photos
from arbooth.data.files import write_json
from arbooth.errors import DvcFailed, InputError, checked_name
from arbooth.graph import target
from arbooth.params import Params, load_params
from arbooth.project import Project

COMMON, PHOTOS = "common", 5


def run_benchmark(project: Project, source: Path, study: str, subjects: int | None = None) -> list[dict]:
    """Run every setting of a study, and the anchors; what is done already is not done again.

    Args:
        project: whose parameters are the defaults.
        source: the benchmark's folder.
        study: an entry of its studies.yaml.
        subjects: only the first so many.

    Returns:
        {"setting", "metrics": metric -> {"mean", "low", "high", "subjects"}} for each, anchors or other methods last; also
        written to results/STUDY.json.

    Raises:
        InputError: no such benchmark or study, or a stage failed.
    """
    compared = settings_of(source, study)
    scorer = Scorer(source, project) if (source / DRAWINGS).is_file() else EncoderScorer(source)
    rows = {}
    for name, overrides in compared.items():
        run = prepare(project, source, source / "runs" / study / name, overrides, subjects)
        reproduce(run, scorer.stage)
        rows[name] = summed(scorer.score_run(run))
    rows |= scorer.anchors(defaults(project, source, subjects))
    # A list: JSON files are written with sorted keys, and settings have an order.
    results = [{"setting": name, "metrics": metrics} for name, metrics in rows.items()]
    write_json(results_file(source, study, subjects), results)
    return results


def results_file(source: Path, study: str, subjects: int | None = None) -> Path:
    """Where a study's results lie; those of a few subjects only never replace the whole."""
    return source / "results" / (f"{study}.json" if subjects is None else f"{study}-first-{subjects}.json")


def settings_of(source: Path, study: str) -> dict[str, dict]:
    if not (source / "studies.yaml").is_file():
        if source.name in PROTOCOLS:
            raise InputError(f"{source.name} needs its photos, which you have: name their folder with --photos")
        known = ", ".join(sorted(p.parent.name for p in source.parent.glob("*/studies.yaml"))) or "none"
        raise InputError(f"no benchmark at {source} (known: {known})")
    studies = OmegaConf.to_container(OmegaConf.load(source / "studies.yaml"))
    if study not in studies:
        raise InputError(f"no study {study!r} in {source / 'studies.yaml'} (known: {', '.join(studies)})")
    chosen = studies[study]
    common = chosen.pop(COMMON, {}) if isinstance(chosen, dict) else {}
    if not isinstance(chosen, dict) or not chosen:
        raise InputError(f"study {study!r} in {source / 'studies.yaml'} names no setting")
    for name in chosen:
        if name in ANCHORS:
            raise InputError(f"a setting of {study} can't be named {name!r}: that is an anchor")
        checked_name(str(name), f"a setting of {study}")
    return {str(name): {**common, **(overrides or {})} for name, overrides in chosen.items()}


def merged(project: Project, source: Path, subjects: int | None, overrides: dict | None = None) -> DictConfig:
    """The project's params.yaml with what the benchmark sets in it, and then a setting.

    Raises:
        InputError: the setting names a parameter that is not there.
    """
    params = OmegaConf.load(project.params_file)
    for key, value in OmegaConf.load(source / "params.yaml").items():
        # Subjects, classes and prompts are the benchmark's; of other sections it sets single values.
        params[key] = value if key in ("subjects", "classes", "prompt_sets") else OmegaConf.merge(params[key], value)
    if subjects is not None:
        params.subjects = {name: params.subjects[name] for name in list(params.subjects)[:subjects]}
        used = {subject["class"] for subject in params.subjects.values()}
        params.classes = {name: noun for name, noun in params.classes.items() if name in used}
    for key, value in (overrides or {}).items():
        for one in [key.replace("*", name) for name in params.subjects] if "*" in key else [key]:
            if OmegaConf.select(params, one) is None:
                raise InputError(f"{source / 'studies.yaml'}: no parameter {one} in params.yaml")
            OmegaConf.update(params, one, value, merge=False)
    return params


def defaults(project: Project, source: Path, subjects: int | None) -> Params:
    """What every setting of a benchmark starts from."""
    return load_params(source / "params.yaml", text=OmegaConf.to_yaml(merged(project, source, subjects)))


def prepare(project: Project, source: Path, folder: Path, overrides: dict, subjects: int | None = None) -> Project:
    """A project for one setting: parameters of its own, photos by link, one DVC cache for all.

    Args:
        overrides: dotted parameter -> value, `*` for every subject; `photos` is how many of each are used, else 5.
    """
    overrides = dict(overrides)
    photos = overrides.pop("photos", PHOTOS)
    params = merged(project, source, subjects, overrides)
    # One cache for all settings: what they have in common (tokens, priors) is made once.
    cache = source / "runs" / "cache"
    run = create(folder, OmegaConf.to_yaml(params), home=project.home, cache=cache)
    copy_bases(project, run)
    for name in params.subjects:
        where = source / "photos" / name
        if not where.is_dir():
            raise InputError(f"{where} is not there: every subject of {source / 'params.yaml'} needs its photos")
        link_photos(run, name, sorted(p for p in where.iterdir() if p.is_file())[:photos])
    return run


def reproduce(run: Project, stage: str) -> None:
    """Every subject's stages up to one, whose files the scorer reads; nothing goes into the registry.

    Raises:
        InputError: a stage failed; what was done stays, and the next call resumes.
    """
    try:
        run.dvc("repro", *(target(stage, subject) for subject in run.params().subjects))
    except DvcFailed as error:
        raise InputError(f"{error} in {run.root}: mend what it names, then run this again") from None
