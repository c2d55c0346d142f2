"""Benchmarks: many subjects through the same DVC stages, scored between two anchors, with intervals.

A benchmark is a folder: params.yaml (subjects like any user's, and what else it sets), photos/, held/ (what a
perfect painter would make of every prompt: the ceiling), drawings.json (which drawing each subject is) and
studies.yaml (what differs in each setting that is compared).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F

import arbooth
from arbooth.data.adapters import read_adapter
from arbooth.data.bases import EMBEDDED, load_base
from arbooth.data.files import read_json, whole_file, whole_folder, write_json
from arbooth.data.pictures import read_pictures
from arbooth.data.records import write_picture
from arbooth.errors import NAME, InputError
from arbooth.metrics.drawings import Drawings, load_drawings
from arbooth.metrics.encoders import Encoders, batched, load_encoders
from arbooth.metrics.judge import Judge, load_judge
from arbooth.metrics.scores import diversity
from arbooth.model.autoencoder import to_uint8
from arbooth.painter import Painter
from arbooth.params import Params, load_params
from arbooth.progress import track
from arbooth.settings import settings, torch_device
from arbooth.stages.generate import prompts_of, write_paintings

FLOOR, TOKENIZER, CEILING = ANCHORS = "floor", "tokenizer", "ceiling"
COMMON, PHOTOS = "common", 5
DRAWS = 2000
Values = dict[str, list[float]]


def run_benchmark(source: Path, study: str, subjects: int | None = None) -> list[dict]:
    """Run every setting of a study, and both anchors; what is done already is not done again.

    Args:
        source: the benchmark's folder.
        study: an entry of its studies.yaml.
        subjects: only the first so many.

    Returns:
        {"setting", "metrics": metric -> {"mean", "low", "high", "subjects"}} for each, anchors last; also
        written to results/STUDY.json.

    Raises:
        InputError: no such benchmark or study, or a stage failed.
    """
    compared = _settings(source, study)
    scorer, scores = Scorer(source), {}
    for name, overrides in compared.items():
        folder = source / "runs" / study / name
        prepare(source, folder, overrides, subjects)
        reproduce(folder)
        scores[name] = scorer.score_run(folder)
    params = _defaults(source, subjects)
    scores[FLOOR] = scorer.score_floor(params)
    scores[CEILING] = scorer.score_held(params)
    scores[TOKENIZER] = scorer.score_tokenizer(params)
    # A list: JSON files are written with sorted keys, and settings have an order.
    results = [{"setting": name, "metrics": summed(own)} for name, own in scores.items()]
    write_json(results_file(source, study, subjects), results)
    return results


def results_file(source: Path, study: str, subjects: int | None = None) -> Path:
    """Where a study's results lie; those of a few subjects only never replace the whole."""
    return source / "results" / (f"{study}.json" if subjects is None else f"{study}-first-{subjects}.json")


def _settings(source: Path, study: str) -> dict[str, dict]:
    if not (source / "studies.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in source.parent.glob("*/studies.yaml"))) or "none"
        raise InputError(f"no benchmark at {source} (known: {known})")
    studies = OmegaConf.to_container(OmegaConf.load(source / "studies.yaml"))
    if study not in studies:
        raise InputError(f"no study {study!r} in {source / 'studies.yaml'} (known: {', '.join(studies)})")
    own = studies[study]
    common = own.pop(COMMON, {}) if isinstance(own, dict) else {}
    if not isinstance(own, dict) or not own:
        raise InputError(f"study {study!r} in {source / 'studies.yaml'} names no setting")
    for name in own:
        if not NAME.fullmatch(str(name)) or name in ANCHORS:
            raise InputError(f"a setting of {study} can't be named {name!r}: use 1 to 64 of a-z, 0-9, _ and -")
    return {str(name): {**common, **(overrides or {})} for name, overrides in own.items()}


def merged(source: Path, subjects: int | None, overrides: dict | None = None) -> DictConfig:
    """The project's params.yaml with what the benchmark sets in it, and then a setting.

    Raises:
        InputError: the setting names a parameter that is not there.
    """
    params = OmegaConf.load(settings().project / "params.yaml")
    for key, value in OmegaConf.load(source / "params.yaml").items():
        # Subjects, classes and prompts are the benchmark's own; of other sections it sets single values.
        params[key] = value if key in ("subjects", "classes", "prompt_sets") else OmegaConf.merge(params[key], value)
    if subjects is not None:
        params.subjects = {name: params.subjects[name] for name in list(params.subjects)[:subjects]}
        used = {subject["class"] for subject in params.subjects.values()}
        params.classes = {name: own for name, own in params.classes.items() if name in used}
    for key, value in (overrides or {}).items():
        if OmegaConf.select(params, key) is None:
            raise InputError(f"{source / 'studies.yaml'}: no parameter {key} in params.yaml")
        OmegaConf.update(params, key, value, merge=False)
    return params


def _defaults(source: Path, subjects: int | None) -> Params:
    path = source / "runs" / "params.yaml"
    with whole_file(path) as part:
        OmegaConf.save(merged(source, subjects), part)
    return load_params(path)


def prepare(source: Path, folder: Path, overrides: dict, subjects: int | None = None) -> None:
    """A DVC project for one setting: parameters of its own, photos and code by link, one cache for all.

    Args:
        overrides: dotted parameter -> value; `photos` is how many of every subject are used, else 5.
    """
    overrides = dict(overrides)
    photos = overrides.pop("photos", PHOTOS)
    params = merged(source, subjects, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "params.yaml") as part:
        OmegaConf.save(params, part)
    project = settings().project
    for name, target in {
        "dvc.yaml": project / "dvc.yaml",
        ".dvcignore": project / ".dvcignore",
        "bases": project / "bases",
        "arbooth": Path(arbooth.__file__).parent,
    }.items():
        _link(folder / name, target)
    for name in params.subjects:
        where = source / "photos" / name
        if not where.is_dir():
            raise InputError(f"{where} is not there: every subject of {source / 'params.yaml'} needs its photos")
        shutil.rmtree(folder / "photos" / name, ignore_errors=True)
        (folder / "photos" / name).mkdir(parents=True)
        for file in sorted(p for p in where.iterdir() if p.is_file())[:photos]:
            _link(folder / "photos" / name / file.name, file)
    if not (folder / ".dvc").is_dir():
        _dvc(folder, "init", "--no-scm", "-q")
        # One cache for all settings: what they have in common (tokens, priors) is made once.
        _dvc(folder, "config", "cache.dir", str((source / "runs" / "cache").absolute()))


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() or link.exists():
        link.unlink()
    link.symlink_to(target.absolute())


def reproduce(folder: Path) -> None:
    """Every stage up to the pictures, which the scorer reads; nothing goes into the registry.

    Raises:
        InputError: a stage failed; what was done stays, and the next call goes on.
    """
    _dvc(folder, "repro", "generate")


def _dvc(folder: Path, *arguments: str) -> None:
    here, scripts = settings(), str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": scripts + os.pathsep + os.environ.get("PATH", "")}
    # The run is a project of its own on the same machine.
    environment |= {"ARBOOTH_PROJECT": str(folder.absolute()), "ARBOOTH_DEVICE": here.device}
    environment |= {"ARBOOTH_ATTENTION": here.attention, "ARBOOTH_MAX_PIXELS": str(here.max_pixels)}
    environment |= {f"ARBOOTH_{name.upper()}": str(here.path(name)) for name in ("weights", "encoders")}
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments)} failed in {folder}: mend what it names, then run this again")


class Scorer:
    """Scores folders of pictures (with their index.json) against a subject's photos."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.encoders: Encoders = load_encoders("embedded", EMBEDDED, EMBEDDED)
        self.judge: Judge = load_judge(EMBEDDED)
        self.drawings: Drawings = load_drawings(EMBEDDED)
        self.own = read_json(source / "drawings.json")

    def score_run(self, folder: Path) -> dict[str, Values]:
        """Subject -> metric -> a value for every picture, of a finished run."""
        params = load_params(folder / "params.yaml")
        scores = {}
        for name in track(params.subjects, f"scoring {folder.name}", len(params.subjects)):
            scores[name] = self.score(folder / "artifacts" / "generate" / name, self._photos(params, name), name)
            timing = read_json(folder / "artifacts" / "timing" / f"{name}.json")
            scores[name]["seconds_per_image"] = [timing["seconds_per_image"]]
            adapter = read_adapter(folder / "artifacts" / "finetune" / f"{name}.safetensors")
            trained = adapter.token.numel() + sum(own.numel() for own in adapter.parameters.values())
            scores[name]["trained_millions"] = [trained / 1e6]
        return scores

    def score_floor(self, params: Params) -> dict[str, Values]:
        """The untuned base on the same prompts without the identifier."""
        scores = {}
        for name in params.subjects:
            folder = self.source / "runs" / FLOOR / params.subjects[name].class_name
            paint_floor(params, name, folder)
            scores[name] = self.score(folder, self._photos(params, name), name)
        return scores

    def score_held(self, params: Params) -> dict[str, Values]:
        """What a perfect painter would make of every prompt.

        Raises:
            InputError: the pictures answer other prompts.
        """
        scores = {}
        for name in params.subjects:
            folder = self.source / "held" / name
            wanted = {row["prompt"] for row in prompts_of(params, name) if row["kind"] == "subject"}
            if wanted != {row["prompt"] for row in read_json(folder / "index.json")}:
                raise InputError(f"{folder} answers other prompts than {self.source / 'params.yaml'}: render it anew")
            scores[name] = self.score(folder, self._photos(params, name), name)
        return scores

    def score_tokenizer(self, params: Params) -> dict[str, Values]:
        """What the base's tokens keep of the perfect painter's pictures: about the best that fine-tuning can paint."""
        here, device = settings(), torch_device()
        base = load_base(params.base, here.project, here.path("weights"))
        quantizer, autoencoder = base.quantizer(params.picture.ratio, params.picture.pixels), base.autoencoder(device)
        scores = {}
        for name in params.subjects:
            held, folder = self.source / "held" / name, self.source / "runs" / TOKENIZER / name
            rows = read_json(held / "index.json")
            pictures = read_pictures([held / row["file"] for row in rows])
            pictures = F.interpolate(pictures, base.picture_size(quantizer), mode="bicubic", antialias=True).clamp(0, 1)
            with torch.inference_mode(), whole_folder(folder) as part:
                for row, picture in zip(rows, pictures):
                    bits = quantizer.encode(autoencoder.encode(picture[None].to(device) * 2 - 1)).bits
                    made = to_uint8(autoencoder.decode(quantizer.inputs_from_bits(bits)[1]))[0]
                    write_picture(part / row["file"], made.cpu().numpy(), {"of": f"{name}/{row['file']}"})
                write_json(part / "index.json", rows)
            scores[name] = self.score(folder, self._photos(params, name), name)
        return scores

    def _photos(self, params: Params, name: str) -> Tensor:
        # Always all of them: fewer to train on must not make them easier to resemble.
        paths = sorted(p for p in (self.source / "photos" / name).iterdir() if p.is_file())
        return self.encoders.image_features(read_pictures(paths))

    def score(self, folder: Path, photos: Tensor, subject: str) -> Values:
        """Metric -> values of one subject's pictures: cosines, and 1 or 0 for right or wrong.

        Args:
            folder: pictures and index.json, rows with file, kind ("subject" or "class") and prompt.
            photos: features [P,F] of the subject's photos.
        """
        rows = {"subject": [], "class": []}
        for row in read_json(folder / "index.json"):
            rows[row["kind"]].append(row)
        values = {}
        for kind, measure in (("subject", self._score_prompts), ("class", self._score_class)):
            if rows[kind]:
                pictures = read_pictures([folder / row["file"] for row in rows[kind]])
                features = batched(self.encoders.image_features, pictures)
                is_subject = self.drawings.nearest_is_subject(features, photos, self.own[subject])
                alike = (features @ photos.T).mean(1).tolist()
                prompts = [row["prompt"].replace("<S*> ", "") for row in rows[kind]]
                values |= measure(prompts, pictures, alike, is_subject)
        return {metric: own for metric, own in values.items() if own}

    def _score_class(self, _: list[str], pictures: Tensor, alike: list[float], is_subject: list[bool]) -> Values:
        spread = diversity(pictures, self.encoders.distance)
        return {
            "PRES_embedded": alike,
            "drift": [float(hit) for hit in is_subject],
            "DIV_embedded": [] if spread is None else [spread],
        }

    def _score_prompts(
        self, prompts: list[str], pictures: Tensor, alike: list[float], is_subject: list[bool]
    ) -> Values:
        values: Values = defaultdict(list)
        joint = batched(self.encoders.joint_features, pictures)
        said = [answer for batch in pictures.split(64) for answer in self.judge.answers(batch)]
        for prompt, cosine, hit, feature, answers in zip(prompts, alike, is_subject, joint, said):
            wanted = asked(prompt, self.judge.labels)
            right = [answers[question] == answer for question, answer in wanted.items()]
            if "colour" not in wanted:  # a purple cat is not to look like the photos
                values["I_embedded"].append(cosine)
                values["identity"].append(float(hit))
                if set(wanted) == {"scene"}:  # what a subject wears hides some of it
                    values["identity_scene"].append(float(hit))
                right.append(hit)
            values["success"].append(float(all(right)))
            values["T_embedded"].append(float(self.encoders.text_features(prompt) @ feature))
            for question, answer in wanted.items():
                values[question].append(float(answers[question] == answer))
        return values


def asked(prompt: str, labels: dict[str, list[str]]) -> dict[str, str]:
    """What a prompt names of all but the class (scene, colour, accessory, size, place), by the judge's own words."""
    found = {}
    for question in ("scene", "accessory", "colour", "size", "place"):
        for answer in labels.get(question, ()):
            if f" {answer} " in f" {prompt} ":
                found[question] = answer
                prompt = prompt.replace(answer, "")  # the red of a red rug is no colour of the subject
    return found


def paint_floor(params: Params, subject: str, folder: Path) -> None:
    """What the untuned base paints for a subject's prompts without the identifier; not again where it is there."""
    here = settings()
    base = load_base(params.base, here.project, here.path("weights"))
    wanted = [{**row, "prompt": row["prompt"].replace("<S*> ", "")} for row in prompts_of(params, subject)]
    own = params.generate.model_dump(exclude={"images_per_prompt", "class_images"})
    origin = {"base": base.hash, "wanted": wanted, "sampling": own, "seed": params.seed, "compute": params.compute}
    origin["picture"] = params.picture.model_dump()
    origin = json.loads(json.dumps(origin))  # as it will be read back: tuples are lists
    if (folder / "origin.json").is_file() and read_json(folder / "origin.json") == origin:
        return
    painter = Painter(base, torch_device(), params.picture.ratio, params.picture.pixels, params.compute)
    progress = partial(track, label=f"floor {folder.name}")
    paintings = painter.paint(
        [(row["prompt"], row["index"]) for row in wanted], params.seed, painter.sampling(**own), None, progress
    )
    with whole_folder(folder) as part:
        write_paintings(part, wanted, paintings)
        write_json(part / "origin.json", origin)


def summed(scores: dict[str, Values]) -> dict[str, dict]:
    """Mean over subjects with its 95% interval, and each subject's own mean, for every metric."""
    metrics = dict.fromkeys(metric for values in scores.values() for metric in values)
    table = {}
    for metric in metrics:
        own = {subject: values[metric] for subject, values in scores.items() if metric in values}
        mean, low, high = interval(list(own.values()))
        subjects = {subject: round(float(np.mean(v)), 4) for subject, v in own.items()}
        table[metric] = {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "subjects": subjects}
    return table


def interval(values: list[list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean over subjects of the mean over their pictures, with its 95% bootstrap interval.

    Subjects are what is drawn with replacement: their means carry the noise of prompts and seeds along.
    """
    means = np.array([np.mean(own) for own in values])
    low, high = np.quantile(means[draws(len(means), seed)].mean(1), (0.025, 0.975))
    return float(means.mean()), float(low), float(high)


def draws(count: int, seed: int = 0) -> np.ndarray:
    """Which subjects each of the bootstrap's samples holds: [DRAWS, count]."""
    return np.random.default_rng(seed).integers(0, count, (DRAWS, count))
