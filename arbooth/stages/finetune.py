"""Token and prior caches -> adapter and curves."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from arbooth.data import caches
from arbooth.data.adapters import Adapter, write_adapter
from arbooth.data.bases import Base, kept_type, load_base
from arbooth.data.files import sha256, whole_folder
from arbooth.data.resume import ResumeFile
from arbooth.errors import InputError
from arbooth.method.fit import FitSettings, fit
from arbooth.method.prior import ClassPrior
from arbooth.model.quantizer import Quantizer
from arbooth.progress import track
from arbooth.settings import settings, torch_device
from arbooth.stages import prior as prior_stage


def fit_settings(params) -> FitSettings:
    """The recipe of the chosen method."""
    method = params.methods[params.finetune.method]
    own = params.finetune.model_dump(exclude={"method"})
    return FitSettings(**own, **method.model_dump(), seed=params.seed)


@dataclass(frozen=True)
class Inputs:
    """Everything that a run of `fit` reads."""

    base: Base
    quantizer: Quantizer
    tokens: caches.SubjectTokens
    prior: ClassPrior | None
    recipe: FitSettings


def read_inputs(params, key: str, reads: dict[str, Path]) -> Inputs:
    """Raises InputError: a cache is missing, or was made with something else."""
    here = settings()
    base = load_base(params.base, here.project, here.path("weights"))
    quantizer = base.quantizer(params.picture.ratio, params.picture.pixels)
    class_name = params.subjects[key].class_name
    prompt = params.templates.subject.replace("{class}", params.classes[class_name].noun)
    tokens = caches.read_subject(reads["tokens"], caches.origin(base.hash, quantizer, prompt=prompt))
    recipe, prior = fit_settings(params), None
    if recipe.prior != "none":
        prior = caches.read_prior(reads["prior"], prior_stage.header(params, base, quantizer, class_name))
    return Inputs(base, quantizer, tokens, prior, recipe)


def run(params, key, reads, writes) -> None:
    here, device = settings(), torch_device()
    given = read_inputs(params, key, reads)
    base, recipe = given.base, given.recipe
    if here.attention == "flex" and device.type == "cpu":
        raise InputError("FlexAttention does not train on the CPU: set ARBOOTH_ATTENTION to scales")
    net = base.transformer(device, params.compute)
    identity = [
        json.dumps({**vars(recipe), "compute": params.compute}, sort_keys=True),
        base.hash,
        sha256(reads["tokens"]),
        sha256(reads["prior"]),
        *_code(),
    ]
    run_key = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    with ResumeFile(here.path("resume") / f"{key}.pt", run_key, here.checkpoint_seconds) as resume:
        result = fit(
            net,
            given.quantizer,
            given.tokens.features,
            given.tokens.prompt,
            given.prior,
            recipe,
            resume=resume,
            progress=partial(track, label=f"finetune {key}"),
            attention=here.attention,
        )
    # Kept in the type that they are used in: nothing is lost.
    parameters = {
        name: value.to(kept_type(name, value, params.compute)).cpu() for name, value in result.parameters.items()
    }
    # Serving paints the picture's shape, and computes in the type, that the subject was trained with.
    made = {"method": params.finetune.method, "compute": params.compute, "picture": params.picture.model_dump()}
    noun = params.classes[params.subjects[key].class_name].noun
    adapter = Adapter(result.token.cpu(), parameters, base.hash, key, noun, {**made, **vars(recipe)})
    write_adapter(writes["adapter"], adapter)
    write_curves(writes["curves"], result.history)
    resume.finish()


def _code() -> list[str]:
    """Hashes of what a run computes with: a run that was stopped does not go on in other code."""
    package = Path(__file__).resolve().parent.parent
    return [sha256(package / "method"), sha256(package / "model")]


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """One CSV a curve (loss, subject, prior, scale_1, ...) with columns step and value, as DVC plots them."""
    with whole_folder(folder) as part:
        for name in (n for n in history[0] if n != "step"):
            with (part / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["step", "value"])
                writer.writerows([row["step"], f"{row[name]:.6g}"] for row in history)
