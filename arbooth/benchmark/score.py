"""What pictures of a subject are worth: scores between anchors that are measured the same way."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from arbooth.benchmark.statistics import Values, summed
from arbooth.data.adapters import read_adapter
from arbooth.data.files import read_fields, read_json, read_rows, whole_folder, write_json
from arbooth.data.networks import load_autoencoder, quantizer_of
from arbooth.data.pictures import read_pictures, write_picture
from arbooth.errors import InputError
from arbooth.method.prompts import without_identifier
from arbooth.metrics.drawings import Drawings, load_drawings
from arbooth.metrics.encoders import Encoders, batched, load_encoders
from arbooth.metrics.judge import Judge, load_judge
from arbooth.metrics.scores import diversity, sharpness
from arbooth.model.autoencoder import to_uint8
from arbooth.painting.folder import write_paintings
from arbooth.painting.painter import Painter
from arbooth.params import Params
from arbooth.progress import track
from arbooth.project import Project
from arbooth.stages.generate import prompts_of

FLOOR, TOKENIZER, CEILING = ANCHORS = "floor", "tokenizer", "ceiling"
DRAWINGS = "drawings.json"


class Scorer:
    """Scores folders of pictures (with their index.json) against a subject's photos."""

    stage = "generate"

    def __init__(self, source: Path, project: Project) -> None:
        self.source, self.project = source, project
        self.encoders: Encoders = load_encoders("embedded")
        self.judge: Judge = load_judge()
        self.drawings: Drawings = load_drawings()
        self.subject_drawings = read_json(source / DRAWINGS)

    def score_run(self, run: Project) -> dict[str, Values]:
        """Subject -> metric -> a value for every picture, of a finished run."""
        params, scores = run.params(), {}
        for name in track(params.subjects, f"scoring {run.root.name}", len(params.subjects)):
            painted = run.paths("generate", name, params)[1]
            scores[name] = self.score(painted["images"], self._photos(name), name)
            scores[name]["seconds_per_image"] = [
                read_fields(painted["timing"], seconds_per_image=float)["seconds_per_image"]
            ]
            adapter = read_adapter(run.adapter(name, params), name)
            trained = adapter.identifier.numel() + sum(value.numel() for value in adapter.parameters.values())
            scores[name]["trained_millions"] = [trained / 1e6]
        return scores

    def anchors(self, params: Params) -> dict[str, dict]:
        """What every setting stands between, measured as settings are."""
        measures = {FLOOR: self.score_floor, CEILING: self.score_held, TOKENIZER: self.score_tokenizer}
        return {name: summed(measure(params)) for name, measure in measures.items()}

    def score_floor(self, params: Params) -> dict[str, Values]:
        """The untuned base on the same prompts without the identifier."""
        scores = {}
        for name in params.subjects:
            folder = self.source / "runs" / FLOOR / params.class_of(name)
            paint_floor(self.project, params, name, folder)
            scores[name] = self.score(folder, self._photos(name), name)
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
            if wanted != {row["prompt"] for row in read_rows(folder / "index.json", prompt=str)}:
                raise InputError(f"{folder} answers other prompts than {self.source / 'params.yaml'}: render it anew")
            scores[name] = self.score(folder, self._photos(name), name)
        return scores

    def score_tokenizer(self, params: Params) -> dict[str, Values]:
        """What the base's tokens keep of the perfect painter's pictures: about the best that fine-tuning can paint."""
        base, device = self.project.base(params), self.project.device
        quantizer, autoencoder = quantizer_of(base), load_autoencoder(base, device)
        scores = {}
        for name in params.subjects:
            held, folder = self.source / "held" / name, self.source / "runs" / TOKENIZER / name
            rows = read_rows(held / "index.json", prompt=str, file=str)
            pictures = read_pictures([held / row["file"] for row in rows])
            pictures = F.interpolate(pictures, base.picture_size, mode="bicubic", antialias=True).clamp(0, 1)
            with torch.inference_mode(), whole_folder(folder) as part:
                for row, picture in zip(rows, pictures):
                    bits = quantizer.encode(autoencoder.encode(picture[None].to(device) * 2 - 1)).bits
                    made = to_uint8(autoencoder.decode(quantizer.inputs_from_bits(bits)[1]))[0]
                    write_picture(part / row["file"], made.cpu().numpy(), {"of": f"{name}/{row['file']}"})
                write_json(part / "index.json", rows)
            scores[name] = self.score(folder, self._photos(name), name)
        return scores

    def _photos(self, name: str) -> Tensor:
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
        for row in read_rows(folder / "index.json", kind=str, prompt=str, file=str):
            rows[row["kind"]].append(row)
        values = {}
        for kind, measure in (("subject", self._score_prompts), ("class", self._score_class)):
            if rows[kind]:
                pictures = read_pictures([folder / row["file"] for row in rows[kind]])
                features = batched(self.encoders.image_features, pictures)
                is_subject = self.drawings.nearest_is_subject(features, photos, self.subject_drawings[subject])
                alike = (features @ photos.T).mean(1).tolist()
                prompts = [without_identifier(row["prompt"]) for row in rows[kind]]
                values |= measure(prompts, pictures, alike, is_subject)
        return {metric: measured for metric, measured in values.items() if measured}

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
        values["sharpness"] = sharpness(pictures)
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


def paint_floor(project: Project, params: Params, subject: str, folder: Path) -> None:
    """What the untuned base paints for a subject's prompts without the identifier; not again where it is there."""
    base, sampling = project.base(params), {**params.sampling, "prompt_guidance": 0.0}  # which a subject alone has
    wanted = [{**row, "prompt": without_identifier(row["prompt"])} for row in prompts_of(params, subject)]
    origin = {
        "base": base.hash,
        "wanted": wanted,
        "sampling": sampling,
        "seed": params.seed,
        "compute": params.compute,
    }
    origin["picture"] = params.picture.model_dump()
    origin = json.loads(json.dumps(origin))  # as it will be read back: tuples are lists
    if (folder / "origin.json").is_file() and read_json(folder / "origin.json") == origin:
        return
    painter = Painter(base, sampling, project.device, params.compute)
    progress = partial(track, label=f"floor {folder.name}")
    paintings = painter.paint(
        [(row["prompt"], row["index"]) for row in wanted], params.seed, painter.sampling(), None, progress
    )
    with whole_folder(folder) as part:
        write_paintings(part, wanted, paintings)
        write_json(part / "origin.json", origin)
