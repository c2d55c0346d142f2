"""The schema of params.yaml, and its only reader.

The file is the single home of every value that changes a result; nothing here has a default, so that
DVC's record of the file is complete. Overrides come from a subject's own `overrides`, then from
`key=value` arguments.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from arbooth.errors import NAME, NAME_RULE, InputError
from arbooth.method.layers import LAYERS
from arbooth.method.optimizers import OPTIMIZERS
from arbooth.model.identifier import IDENTIFIER
from arbooth.model.schedule import PIXEL_COUNTS


def _one_of(names: Collection[str]) -> AfterValidator:
    """A word out of a table that has its home elsewhere."""

    def check(word: str) -> str:
        if word not in names:
            raise ValueError(f"{word!r} is none of {', '.join(names)}")
        return word

    return AfterValidator(check)


LARGEST = 10_000_000
Chance = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
PerScale = float | Annotated[tuple[float, ...], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Layer = Annotated[str, _one_of(LAYERS)]
Pixels = Annotated[str, _one_of(("default", *PIXEL_COUNTS))]
NOUN = re.compile(r"[^\W_]+(?:[ '-][^\W_]+)*")
# Every letter may be a token, and the text encoder reads 512: nothing is to be cut off.
PROMPT = 400
# Of the file: a thousand subjects need a tenth of it.
MOST_BYTES = 1_000_000
# What a subject may override: the rest is shared with the prior of its class.
OVERRIDABLE = ("finetune", "generate", "evaluate")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PictureShape(Section):
    """Height over width and pixel count; `default` takes the base's own schedule."""

    ratio: float = Field(gt=0)
    pixels: Pixels


class ClassNoun(Section):
    noun: str = Field(min_length=1, max_length=60)

    @field_validator("noun")
    @classmethod
    def _words(cls, noun: str) -> str:
        if not NOUN.fullmatch(noun):
            raise ValueError(f"{noun!r} is no class noun: write one or two words, say 'teddy bear'")
        return noun


class Subject(Section):
    """`class` names an entry of `classes`; `crops` maps a photo to left, top, right, bottom fractions; `background` stays
    or is taken out of the photos; `captions` maps a photo to a training prompt of its own."""

    class_name: str = Field(alias="class")
    prompts: str
    crops: dict[str, tuple[float, float, float, float]]
    background: Literal["keep", "remove"]
    captions: dict[str, str]
    overrides: dict

    @model_validator(mode="after")
    def _crops_inside(self) -> Subject:
        for photo, (left, top, right, bottom) in self.crops.items():
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"the crop of {photo} must be left < right and top < bottom within 0 and 1")
        return self


class Templates(Section):
    """The training prompts; {class} stands for the noun, and `cut_out` is of subjects whose background was removed."""

    subject: str
    cut_out: str
    prior: str


class Prior(Section):
    samples: int = Field(ge=1, le=100_000)
    temperature: float = Field(gt=0)
    top_k: int = Field(ge=0, le=10_000_000)
    top_p: float = Field(gt=0, le=1)
    keep_pairs: bool


class Method(Section):
    """A preset: which layers are trained, whether scales are weighted, what is done with the prior."""

    layers: tuple[Layer, ...]
    scale_weights: bool
    prior: Literal["distill", "data", "none"]


class Finetune(Section):
    """Section 4 of the paper; see docs/method.md for each name."""

    method: str
    steps: int | Literal["auto"]
    batch: Count
    accumulate: Count
    learning_rate: float = Field(gt=0, le=1000)
    identifier_learning_rate: float = Field(gt=0, le=1000)
    weight_decay: float = Field(ge=0, le=1000)
    betas: tuple[Beta, Beta]
    identifier_tokens: int = Field(ge=1, le=64)
    coarse_scales: int = Field(ge=0, le=100)
    coarse_weight: float = Field(ge=0, le=1_000_000)
    fine_weight: float = Field(ge=0, le=1_000_000)
    prior_weight: float = Field(ge=0, le=1_000_000)
    distillation: Literal["bernoulli", "joint"]
    drop_text: Chance
    correction_strength: Chance
    correction_scales: int = Field(ge=0, le=100)
    recompute: bool
    rank: int = Field(ge=0, le=4096)
    micro_batch: int = Field(ge=0, le=10_000_000)
    last_scale_chance: float = Field(gt=0, le=1)
    optimizer: Annotated[str, _one_of(OPTIMIZERS)]
    decay: float = Field(ge=0, le=0.9)
    sample_every: int = Field(ge=0, le=10_000_000)

    @field_validator("steps", mode="before")
    @classmethod
    def _number_or_auto(cls, steps: object) -> object:
        if steps == "auto" or (str(steps).isascii() and str(steps).isdigit() and 1 <= int(str(steps)) <= LARGEST):
            return steps
        raise ValueError(f"{steps!r} is neither a number of steps, 1 to {LARGEST}, nor auto")


class Generate(Section):
    """How many pictures, and how their bits are drawn; what a subject is judged with is what it is served with."""

    images_per_prompt: Count
    class_images: int = Field(ge=0, le=10_000_000)
    batch: Count
    guidance: PerScale
    temperature: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)]
    top_k: int = Field(ge=0, le=10_000_000)
    top_p: float = Field(gt=0, le=1)
    token_share: Share | Annotated[tuple[Share, ...], Field(min_length=1)]
    prompt_guidance: PerScale


class Evaluate(Section):
    """`embedded` needs nothing; `published` and `corrected` need DINO and CLIP on this machine."""

    encoders: Literal["embedded", "published", "corrected"]


class Publish(Section):
    """When the champion moves: every metric is at least its minimum and at most its maximum, and not worse than the
    present champion's by more than its tolerance."""

    experiment: str = Field(min_length=1)
    minimum: dict[str, float]
    maximum: dict[str, float]
    tolerance: dict[str, Annotated[float, Field(ge=0)]]


class Params(Section):
    base: str
    compute: Literal["float32", "bfloat16"]
    seed: int = Field(ge=0, lt=2**31)
    subjects: dict[str, Subject]
    classes: dict[str, ClassNoun]
    prompt_sets: dict[str, tuple[str, ...]]
    picture: PictureShape
    templates: Templates
    prior: Prior
    methods: dict[str, Method]
    finetune: Finetune
    generate: Generate
    evaluate: Evaluate
    publish: Publish

    def of_subject(self, subject: str, overrides: dict | None = None) -> Params:
        """With the subject's own overrides in their sections.

        Raises:
            ValidationError: an override is invalid.
        """
        laid = {
            name: type(getattr(self, name)).model_validate({**getattr(self, name).model_dump(), **values})
            for name, values in (self.subjects[subject].overrides if overrides is None else overrides).items()
        }
        return self.model_copy(update=laid)

    def check_scales(self, scales: int) -> None:
        """Raises InputError: numbers per scale that are not as many as the base's scales, for any subject."""
        for name, params in [("", self), *((f"subjects.{s}.overrides.", self.of_subject(s)) for s in self.subjects)]:
            for key in ("guidance", "prompt_guidance", "temperature", "token_share"):
                values = getattr(params.generate, key)
                if isinstance(values, tuple) and len(values) != scales:
                    count = f"{name}generate.{key} has {len(values)} values"
                    raise InputError(f"{count}, the base paints in {scales} scales: give one number, or {scales}")

    @property
    def recipe(self) -> dict:
        """What `method.fit.FitSettings` is made of: `finetune` with the chosen method's preset."""
        method = self.methods[self.finetune.method].model_dump()
        return {**self.finetune.model_dump(exclude={"method", "sample_every"}), **method, "seed": self.seed}

    @property
    def sampling(self) -> dict:
        """How pictures are drawn: what `model.sampling.Sampling` is made of."""
        return self.generate.model_dump(exclude={"images_per_prompt", "class_images", "batch"})

    @model_validator(mode="after")
    def _names_refer(self) -> Params:
        problems = [f"{kind}.{name}: {NAME_RULE}" for kind, name in self._odd_names()]
        for name, subject in self.subjects.items():
            if subject.class_name not in self.classes:
                problems.append(f"subjects.{name}.class: no class {subject.class_name!r} in classes")
            if subject.prompts not in self.prompt_sets:
                problems.append(f"subjects.{name}.prompts: no list {subject.prompts!r} in prompt_sets")
            for section in sorted(set(subject.overrides) - set(OVERRIDABLE)):
                problems.append(
                    f"subjects.{name}.overrides.{section}: only {', '.join(OVERRIDABLE)} can differ by subject"
                )
            for photo, caption in subject.captions.items():
                problems += [f"subjects.{name}.captions.{photo}: {odd}" for odd in odd_template(caption, "class", True)]
            problems += self._odd_overrides(name)
        problems += self._odd_recipe(self.finetune, "finetune")
        for name, prompts in self.prompt_sets.items():
            if not prompts:
                problems.append(f"prompt_sets.{name}: holds no prompt")
            for prompt in prompts:
                problems += [f"prompt_sets.{name}: {odd}" for odd in odd_template(prompt, "subject", False)]
        for key, marked in (("subject", True), ("cut_out", True), ("prior", False)):
            odd = odd_template(getattr(self.templates, key), "class", marked)
            problems += [f"templates.{key}: {one}" for one in odd]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _odd_overrides(self, subject: str) -> list[str]:
        """What is wrong with a subject's overrides; of sections that it may not override, the caller tells."""
        overrides = self.subjects[subject].overrides
        known = {name: values for name, values in overrides.items() if name in OVERRIDABLE}
        odd = [
            f"subjects.{subject}.overrides.{n}: must be a table" for n, v in known.items() if not isinstance(v, dict)
        ]
        if odd:
            return odd
        try:
            laid = self.of_subject(subject, known)
        except ValidationError as error:
            return [f"subjects.{subject}.overrides: {line.strip()}" for line in _describe(error).splitlines()]
        return self._odd_recipe(laid.finetune, f"subjects.{subject}.overrides.finetune") if "finetune" in known else []

    def _odd_recipe(self, recipe: Finetune, where: str) -> list[str]:
        """What of a recipe does not fit the other sections."""
        odd = []
        if recipe.method not in self.methods:
            odd.append(f"{where}.method: no method {recipe.method!r} in methods")
        if recipe.distillation == "joint" and not self.prior.keep_pairs:
            odd.append(f"{where}.distillation: joint needs both logits of every bit: set prior.keep_pairs to true")
        return odd

    def _odd_names(self) -> list[tuple[str, str]]:
        named = {"subjects": list(self.subjects), "classes": list(self.classes)}
        return [(kind, n) for kind, names in named.items() for n in names if not NAME.fullmatch(n)]

    def class_of(self, subject: str) -> str:
        """The key of a subject's class, say "teddy_bear"."""
        return self.subjects[subject].class_name

    def template(self, subject: str) -> str:
        """What a subject's photos are captioned with: a ground that is not named is learned as a part of the subject."""
        return self.templates.cut_out if self.subjects[subject].background == "remove" else self.templates.subject

    def noun(self, subject: str) -> str:
        """The class noun of a subject, say "teddy bear"."""
        return self.classes[self.class_of(subject)].noun


def odd_template(template: str, hole: str, marked: bool) -> list[str]:
    """What is wrong with a prompt or template that has a hole for the subject or class; `marked` ones name `<S*>`."""
    odd = []
    if f"{{{hole}}}" not in template:
        odd.append(f"{template[:60]!r} lacks {{{hole}}}")
    rest = template.replace(f"{{{hole}}}", "").replace(IDENTIFIER, "")
    if re.search(r"[<>{}]", rest):
        odd.append(f"{template[:60]!r} holds a mark that is neither {IDENTIFIER} nor {{{hole}}}")
    if (IDENTIFIER in template) != marked:
        odd.append(f"{IDENTIFIER} {'is missing' if marked else f'comes with {{{hole}}}, or does not belong here'}")
    if len(template) > PROMPT or not template.isprintable():
        odd.append(f"a prompt has at most {PROMPT} characters, all printable")
    return odd


def load_params(
    path: Path | str = "params.yaml",
    subject: str | None = None,
    overrides: Sequence[str] = (),
    text: str | None = None,
) -> Params:
    """Read, merge and validate the parameters; all problems are reported at once, each with its path.

    Args:
        path: the file.
        subject: merge this subject's own overrides.
        overrides: `key=value` pairs, the last word.
        text: what the file is to hold, before it is written.

    Raises:
        InputError: no such file or subject, broken YAML, or invalid values.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if text is None and not path.is_file():
        raise InputError(f"no {path} here: run this in the project's folder, or set ARBOOTH_PROJECT to it")
    try:
        if text is None and path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES // 1_000_000} MB: that is no parameters")
        text = path.read_text(encoding="utf-8") if text is None else text
        if re.search(r"(?:^|[\s\[{,])&[^\s&]", text):
            raise InputError(f"{path} holds an anchor (&...), which can unfold without end: write the values out")
        config: Any = OmegaConf.create(text)
        if "${" in text:
            raise InputError(f"{path} interpolates a value with ${{...}}, which DVC would not see change: write it out")
        if subject is not None:
            declared = (config.get("subjects") or {}).get(subject) if NAME.fullmatch(subject) else None
            if declared is None:
                known = ", ".join(config.get("subjects") or {}) or "none yet"
                raise InputError(
                    f"no subject {subject!r} in {path} (known: {known}): add it with `arbooth subject add`"
                )
            config = _merge(config, declared.get("overrides") or {}, f"subjects.{subject}.overrides")
        config = _merge(config, OmegaConf.from_dotlist(list(overrides)), "the command line")
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    except InputError:
        raise
    except Exception as error:  # the YAML reader has exceptions of its own for each kind of mistake
        raise InputError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path} is invalid:\n{_describe(error)}") from None


def _merge(config, overrides, origin: str):
    """Merge overrides that may change values, never add names or touch subjects."""
    from omegaconf import OmegaConf

    for key in _leaves(OmegaConf.to_container(OmegaConf.create(overrides))):
        if key.split(".")[0] in ("subjects", "classes"):
            raise InputError(f"{origin} sets {key}: subjects and classes are declared in the file alone")
        if OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            raise InputError(f"{origin} sets {key}, which params.yaml does not have: see the names in that file")
    return OmegaConf.merge(config, overrides)


_ABSENT = object()


def _leaves(tree: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, value in tree.items():
        keys += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [f"{prefix}{name}"]
    return keys


def _describe(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines += [f"  {where + ': ' if where else ''}{line}" for line in message.splitlines()]
    return "\n".join(lines)
