"""The papers' own benchmarks, from a copy of their photos and prompts that the user has.

ViCo: 16 subjects x 31 prompts x 8 pictures. DreamBench (DreamBooth): 30 x 25 x 4. Each becomes a benchmark like any other,
a folder of `benchmarks/`, that is measured by the stage `evaluate` instead of by the embedded base's judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from arbooth.benchmark.foreign import checked_encoders
from arbooth.benchmark.statistics import Values, summed
from arbooth.creating import link_photos
from arbooth.data.files import read_numbers, whole_file
from arbooth.data.manifest import photo_files
from arbooth.errors import InputError
from arbooth.params import Params
from arbooth.project import Project

LIVE, OBJECT = "live", "nonlive"
# Of the network that a subject was tuned into, on the prompt of the class alone.
CLASS_IMAGES = 100
MOST_BYTES = 1_000_000
OTHERS, PUBLISHED = "others", "published.yaml"


@dataclass(frozen=True)
class Protocol:
    """Who is painted, and with which prompts.

    Attributes:
        subjects: folder -> class noun, and which prompts it has.
        prompts: live and nonlive, with {subject} where the subject stands.
        images: of a prompt.
        published: method -> metric -> what its paper says.
    """

    subjects: dict[str, tuple[str, str]]
    prompts: dict[str, list[str]]
    images: int
    published: dict[str, dict[str, float]]


VICO = {
    "black_cat": ("cat", LIVE),
    "brown_cat": ("cat", LIVE),
    "brown_dog": ("dog", LIVE),
    "brown_dog2": ("dog", LIVE),
    "fat_dog": ("dog", LIVE),
    "alarm_clock": ("clock", OBJECT),
    "brown_teddybear": ("teddy bear", OBJECT),
    "cat_statue": ("statue", OBJECT),
    "duck_toy": ("toy", OBJECT),
    "elephant_statue": ("statue", OBJECT),
    "monster_toy": ("toy", OBJECT),
    "pink_sunglasses": ("sunglasses", OBJECT),
    "red_teapot": ("teapot", OBJECT),
    "red_vase": ("vase", OBJECT),
    "tortoise_plushy": ("plushy", OBJECT),
    "wooden_barn": ("barn", OBJECT),
}
# ARBooth, its table of results on ViCo: I_dino by its own evaluator, text fidelity on the scale of that benchmark's, seconds.
_VICO_TABLE = {
    "Textual Inversion": (0.529, 0.220, 18.0),
    "DreamBooth": (0.640, 0.815, 18.0),
    "Custom Diffusion": (0.659, 0.815, 18.0),
    "ELITE": (0.584, 0.783, 11.0),
    "DreamMatcher": (0.682, 0.823, 32.0),
    "ARBooth, Infinity-2B": (0.705, 0.824, 0.5),
}
_COLUMNS = ("I_dino_as_published", "T_clip of ViCo's evaluator", "seconds_per_image")


def vico(folder: Path) -> Protocol:
    """From a folder for each subject, beside prompts_live.txt and prompts_nonlive.txt: a prompt a line, {} for the subject."""
    prompts = {}
    for kind in (LIVE, OBJECT):
        path = folder / f"prompts_{kind}.txt"
        prompts[kind] = [line.strip().replace("{}", "{subject}") for line in _text(path).splitlines() if line.strip()]
        _refuse_without_subject(path, prompts[kind])
    published = {method: dict(zip(_COLUMNS, values)) for method, values in _VICO_TABLE.items()}
    return Protocol(VICO, prompts, 8, published)


def dreambench(folder: Path) -> Protocol:
    """From a folder for each subject, beside prompts_and_classes.txt, as its authors publish them."""
    path = folder / "prompts_and_classes.txt"
    text = _text(path)
    nouns = dict(re.findall(r"^(\w+),([\w ]+)$", text, re.MULTILINE))
    nouns.pop("subject_name", None)
    lists = [re.findall(r"'(.*)'\.format\(", block) for block in re.findall(r"prompt_list = \[(.*?)\n\]", text, re.DOTALL)]
    if not nouns or len(lists) != 2:
        raise InputError(f"{path} has no table of subject_name,class, or not its two lists of prompts: take the published file")
    things, live = ([line.replace("{0} {1}", "{subject}") for line in lines] for lines in lists)
    for lines in (things, live):
        _refuse_without_subject(path, lines)
    kinds = {name: (noun, LIVE if noun in ("cat", "dog") else OBJECT) for name, noun in nouns.items()}
    return Protocol(kinds, {OBJECT: things, LIVE: live}, 4, {})


PROTOCOLS: dict[str, Callable[[Path], Protocol]] = {"vico": vico, "dreambench": dreambench}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES} bytes: that is no list of prompts")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): it comes with the benchmark's photos") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8") from None


def _refuse_without_subject(path: Path, prompts: list[str]) -> None:
    odd = [prompt for prompt in prompts if prompt.count("{subject}") != 1]
    if odd or not prompts:
        raise InputError(f"{path}: {odd[0] if odd else 'no line'!r} does not name the subject once, as {{}} or {{0}} {{1}}")


def lay_out(project: Project, name: str, folder: Path, encoders: str) -> str:
    """Make, or make anew, the benchmark of a protocol in the project; a studies.yaml that is there stays.

    Args:
        name: vico or dreambench.
        folder: of its photos, a folder for each subject; those that are missing are left out.
        encoders: corrected, published or embedded.

    Returns:
        A line that says how many subjects there are.

    Raises:
        InputError: no such protocol, or the folder holds none of its subjects or not its prompts, or is the benchmark's own.
    """
    if name not in PROTOCOLS:
        raise InputError(f"{name!r} takes no photos: those that do are {' and '.join(PROTOCOLS)}")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of {name}'s photos")
    protocol, encoders = PROTOCOLS[name](folder), checked_encoders(encoders)
    found = {subject: photo_files(folder / subject) for subject in protocol.subjects if (folder / subject).is_dir()}
    found = {subject: files for subject, files in found.items() if files}
    if not found:
        raise InputError(f"{folder} holds none of {name}'s subjects: {', '.join(list(protocol.subjects)[:4])}, ...")
    source = Project(project.benchmarks / name)
    for subject in found:
        _refuse_originals(source.photos(subject), folder / subject)
    for subject, files in found.items():
        link_photos(source, subject, files)
    written = {
        "params.yaml": _params(protocol, list(found), encoders),
        PUBLISHED: protocol.published,
        "studies.yaml": {"default": {"arbooth": {"photos": 20}}},
    }
    for file, values in written.items():
        if file != "studies.yaml" or not (source.root / file).exists():
            with whole_file(source.root / file) as part:
                OmegaConf.save(values, part)
    (source.root / ".gitignore").write_text("/runs/\n/photos/\n", encoding="utf-8")
    return f"{name}: {len(found)} of {len(protocol.subjects)} subjects are in {folder}"


def _refuse_originals(links: Path, given: Path) -> None:
    """Raises InputError: what is made anew, of links, holds the photos themselves, or some that are no links."""
    own = links.is_dir() and any(not path.is_symlink() for path in links.iterdir())
    if own or links.resolve() == given.resolve():
        raise InputError(f"{links} is made anew, of links: keep the photos in a folder of their own, and name that")


def _params(protocol: Protocol, subjects: list[str], encoders: str) -> dict:
    chosen = {name: protocol.subjects[name] for name in subjects}
    rest: dict = {"background": "keep", "crops": {}, "captions": {}, "overrides": {}}
    return {
        "subjects": {n: {"class": noun.replace(" ", "-"), "prompts": kind, **rest} for n, (noun, kind) in chosen.items()},
        "classes": {noun.replace(" ", "-"): {"noun": noun} for noun, _ in chosen.values()},
        "prompt_sets": protocol.prompts,
        "generate": {"images_per_prompt": protocol.images, "class_images": CLASS_IMAGES},
        "evaluate": {"encoders": encoders},
    }


class EncoderScorer:
    """Takes what the stage `evaluate` measured; beside it other methods' pictures, and what papers say."""

    stage = "evaluate"

    def __init__(self, source: Path) -> None:
        self.source = source

    def score_run(self, run: Project) -> dict[str, Values]:
        """Subject -> metric -> its mean over prompts, of a finished run."""
        params = run.params()
        return {name: _values(run.paths("evaluate", name, params)[1]["metrics"]) for name in params.subjects}

    def anchors(self, params: Params) -> dict[str, dict]:
        """Setting -> metrics: `others/METHOD/SUBJECT/metrics.json`, by `arbooth evaluate --out`, and published numbers."""
        rows = {}
        for folder in sorted(path for path in (self.source / OTHERS).glob("*") if path.is_dir()):
            measured = {name: folder / name / "metrics.json" for name in params.subjects}
            scores = {name: _values(path) for name, path in measured.items() if path.is_file()}
            if scores:
                rows[folder.name] = summed(scores)
        published = self.source / PUBLISHED  # a benchmark that somebody made by hand has none
        for method, values in (OmegaConf.load(published) if published.is_file() else {}).items():
            rows[f"{method} (published)"] = {
                metric: {"mean": value, "low": value, "high": value, "subjects": {}} for metric, value in values.items()
            }
        return rows


def _values(path: Path) -> Values:
    return {metric: [value] for metric, value in read_numbers(path).items()}
