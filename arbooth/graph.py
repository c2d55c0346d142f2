"""The stage table, and the dvc.yaml files that are written from it.

Every subject and every class has a file of its own (subjects/NAME/dvc.yaml, classes/NAME/dvc.yaml), and so a lock
of its own: what DVC reads and writes for one subject does not grow with their number. The file at the top holds
what runs over all of them; `dvc repro` there runs everything that it needs.

The files hold literal names that were checked and interpolate nothing, since DVC would hand whatever
params.yaml says to a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from arbooth.errors import InputError, checked_name

# It always runs, writes down the base and every stage's code, and is no stage of the table: all others depend on it.
STAMP_STAGE, STAMP = "stamp", "artifacts/stamp.json"
HEADER = "# Written from the stage table and params.yaml by `arbooth graph`: nobody edits it.\n"


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        over: what it runs for: each "subject", each "class", or "all" at once.
        params: the sections of the parameters that it is handed, and DVC watches.
        subject: the fields of its own subject that it reads, likewise.
        noun: whether it reads the class noun.
        base: whether it reads the base model.
        reads, writes: name -> path in the project; {key} is the subject or class, {class} the
            subject's class.
        metrics, plots: which of `writes` DVC shows as such.
        package: files of the package that it reads, beside its code.
        always: it writes to what DVC can't see, so it runs each time and does only what is missing there.
    """

    name: str
    over: Literal["subject", "class", "all"]
    params: tuple[str, ...]
    reads: dict[str, str]
    writes: dict[str, str]
    subject: tuple[str, ...] = ()
    noun: bool = False
    base: bool = True
    metrics: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    package: tuple[str, ...] = ()
    always: bool = False

    @property
    def sections(self) -> tuple[str, ...]:
        """Everything of the parameters that the stage is handed."""
        # Overrides are laid over their sections before a stage is handed them.
        fields = set(self.subject) - {"overrides"}
        named = (
            *(("base",) if self.base else ()),
            *(("subjects",) if fields or (self.noun and self.over == "subject") else ()),
            *(("classes",) if self.noun else ()),
        )
        return tuple(dict.fromkeys((*named, *self.params)))


# Name -> path of everything that stages hand to each other.
_IMAGES, _TOKENS, _PRIOR = (
    "artifacts/preprocess/{key}",
    "artifacts/tokenize/{key}.safetensors",
    "artifacts/prior/{}.safetensors",
)
_PHOTOS = "photos/{key}"
_ADAPTER, _CURVES = "artifacts/finetune/{key}.safetensors", "artifacts/curves/{key}"
_SAMPLES = "artifacts/samples/{key}.png"
_PAINTED = {"images": "artifacts/generate/{key}", "timing": "artifacts/timing/{key}.json"}
_SHEET, _THUMBNAIL, _METRICS, _PROMPTS = (
    "artifacts/sheets/{key}.png",
    "artifacts/thumbnails/{key}.jpg",
    "artifacts/evaluate/{key}.json",
    "artifacts/prompts/{key}.csv",
)
_REPORT = "artifacts/report"
_RECIPE = ("picture", "templates", "prior", "methods", "finetune", "compute", "seed")

_STAGES = (
    Stage("preprocess", "subject", ("picture",), {"photos": _PHOTOS}, {"images": _IMAGES}, subject=("crops", "background")),
    Stage(
        "tokenize", "subject", ("picture", "templates"),
        {"images": _IMAGES}, {"tokens": _TOKENS}, subject=("background", "captions"), noun=True,
    ),
    Stage(
        "prior", "class", ("picture", "templates", "prior", "compute", "seed"),
        {}, {"prior": _PRIOR.format("{key}")}, noun=True,
    ),
    Stage(
        "finetune", "subject", _RECIPE,
        {"photos": _PHOTOS, "tokens": _TOKENS, "prior": _PRIOR.format("{class}")},
        {"adapter": _ADAPTER, "curves": _CURVES, "samples": _SAMPLES},
        subject=("background", "captions", "overrides"), noun=True, plots=("curves", "samples"),
    ),
    Stage(
        "generate", "subject", ("picture", "templates", "prompt_sets", "generate", "compute", "seed"),
        {"adapter": _ADAPTER}, {**_PAINTED, "sheet": _SHEET, "thumbnail": _THUMBNAIL},
        subject=("prompts", "overrides"), noun=True, plots=("sheet",),
    ),
    Stage(
        "evaluate", "subject", ("evaluate",),
        {"photos": _IMAGES, **_PAINTED}, {"metrics": _METRICS, "prompts": _PROMPTS},
        subject=("overrides",), base=False, metrics=("metrics",),
        package=("embedded/encoders.json", "embedded/encoders.safetensors"),
    ),
    Stage(
        "summarize", "all", ("subjects", "classes"),
        {"metrics": "artifacts/evaluate", "prompts": "artifacts/prompts", "thumbnails": "artifacts/thumbnails"},
        {"table": "artifacts/summary.csv", "overall": "artifacts/summary.json", "report": _REPORT},
        base=False, metrics=("overall",), package=("stages/report.html",),
    ),
    Stage(
        "publish", "all", ("subjects", "classes", *_RECIPE, "generate", "evaluate", "publish"),
        {
            "images": "artifacts/preprocess", "adapters": "artifacts/finetune", "curves": "artifacts/curves",
            "samples": "artifacts/samples", "sheets": "artifacts/sheets",
            "metrics": "artifacts/evaluate", "prompts": "artifacts/prompts", "report": _REPORT,
        },
        {}, always=True,
    ),
)  # fmt: skip
TABLE = {stage.name: stage for stage in _STAGES}
SUBJECT_STAGES = tuple(name for name, stage in TABLE.items() if stage.over == "subject")
CLASS_STAGES = tuple(name for name, stage in TABLE.items() if stage.over == "class")


def fill(where: str, key: str | None, class_name: str | None) -> str:
    """A path of the table, for one subject or class."""
    return where.format(**{"key": key, "class": class_name})


def target(stage: str, key: str | None = None) -> str:
    """How DVC calls a stage of a subject, a class, or of all."""
    return stage if key is None else f"{pipeline(TABLE[stage].over, key)}:{stage}"


def pipeline(over: str, key: str) -> str:
    """The dvc.yaml of a subject or class; as a target of DVC's, all of its stages."""
    return f"{_FOLDERS[over]}/{key}/dvc.yaml"


def lock(over: str, key: str) -> str:
    """Where DVC records what was made for a subject or class."""
    return f"{_FOLDERS[over]}/{key}/dvc.lock"


def of_lock(name: str) -> tuple[str, str]:
    """What a lock is of: "subject" or "class", and its name."""
    folder, key, _ = name.split("/")
    return next(over for over, there in _FOLDERS.items() if there == folder), key


def pipelines(locks: Iterable[str]) -> list[str]:
    """The dvc.yaml beside each of these locks."""
    return [name.removesuffix(".lock") + ".yaml" for name in locks]


def check_lock(name: str, text: str) -> None:
    """Raises InputError: it is no lock's name, or what it holds is no lock of these stages and their files."""
    import yaml

    folder, _, rest = name.partition("/")
    over = {there: over for over, there in _FOLDERS.items()}.get(folder)
    key, _, file = rest.partition("/")
    checked_name(key, "a record of DVC's")
    try:
        if over is None or file != "dvc.lock":
            raise ValueError("no such place")
        for stage, entry in yaml.load(text, Loader=yaml.CSafeLoader)["stages"].items():
            table = TABLE[stage]
            written = {fill(where, key, None) for where in table.writes.values()}
            if table.over != over or {out["path"] for out in entry["outs"]} != written:
                raise ValueError(f"stage {stage} writes something else")
            if not all(re.fullmatch(r"[0-9a-f]{32}(\.dir)?", out["md5"]) for out in entry["outs"]):
                raise ValueError(f"stage {stage} has no hashes")
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{name} is no record of DVC's that fits here ({error}): it is not used") from None


_FOLDERS = {"subject": "subjects", "class": "classes"}


def files(subjects: Mapping[str, str], classes: Iterable[str]) -> dict[str, str]:
    """Every dvc.yaml of a project: relative path -> text.

    Args:
        subjects: name -> class.

    Raises:
        InputError: a name that is not to reach a command.
    """
    texts = {"dvc.yaml": _text(_over("all", None, None, ""))}
    for class_name in classes:
        checked_name(class_name, "a class")
        texts[pipeline("class", class_name)] = _text(_over("class", class_name, class_name, "../.."))
    for subject, class_name in subjects.items():
        checked_name(subject, "a subject")
        texts[pipeline("subject", subject)] = _text(_over("subject", subject, class_name, "../.."))
    return texts


def _over(over: str, key: str | None, class_name: str | None, wdir: str) -> dict[str, dict]:
    stamp = {"cmd": f"arbooth stage {STAMP_STAGE}", "always_changed": True, "outs": [STAMP]}
    stages: dict[str, dict] = {STAMP_STAGE: stamp} if over == "all" else {}
    for stage in TABLE.values():
        if stage.over == over:
            stages[stage.name] = _entry(stage, key, class_name, wdir)
    return stages


def _entry(stage: Stage, key: str | None, class_name: str | None, wdir: str) -> dict:
    def path(where: str) -> str:
        return fill(where, key, class_name)

    entry: dict = {"cmd": " ".join(["arbooth stage", stage.name, *([key] if key else [])])}
    if wdir:
        entry["wdir"] = wdir
    if stage.always:
        return entry | {"always_changed": True, "deps": [path(where) for where in stage.reads.values()]}
    if stage.reads:
        entry["deps"] = [path(where) for where in stage.reads.values()]
    # The base and the code are not files of the project: the stage `stamp` writes down which they are.
    stamped = [*(["base"] if stage.base else []), f"code.{stage.name}"]
    entry["params"] = [
        *stage.params,
        *(f"subjects.{key}.{field}" for field in stage.subject),
        *([f"classes.{class_name}"] if stage.noun and class_name else []),
        {STAMP: stamped},
    ]
    shown = {*stage.metrics, *stage.plots}
    entry["outs"] = [path(where) for name, where in stage.writes.items() if name not in shown]
    if not entry["outs"]:
        del entry["outs"]
    if stage.metrics:
        entry["metrics"] = [path(stage.writes[name]) for name in stage.metrics]
    if stage.plots:
        entry["plots"] = [_plot(name, path(stage.writes[name])) for name in stage.plots]
    return entry


def _plot(name: str, where: str) -> str | dict:
    """Pictures as they are; a folder of curves with their columns."""
    return {where: {"x": "step", "y": "value"}} if name == "curves" else where


def _text(stages: dict[str, dict]) -> str:
    import yaml

    return HEADER + yaml.dump({"stages": stages}, Dumper=yaml.CSafeDumper, sort_keys=False, width=10**6)
