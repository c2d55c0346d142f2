"""How prompts are made of a template, the class noun and the identifier."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from arbooth.errors import InputError
from arbooth.model.identifier import IDENTIFIER

LONGEST = 2000
T = TypeVar("T")


def with_class(template: str, noun: str) -> str:
    """A training template, say "a photo of <S*> {class}", with the noun in its place."""
    return template.replace("{class}", noun)


class View(NamedTuple):
    """A picture that is made of a photo: its file's name, and the scene that stands in its background's place, if one does."""

    photo: str
    ground: str | None = None


def training_prompts(
    views: Sequence[View], template: str, on_ground: str, captions: Mapping[str, str], noun: str, subject: str
) -> tuple[list[str], list[int]]:
    """The prompts that a subject's pictures are learned with, and which of them each picture has.

    Args:
        template: for photos without a caption.
        on_ground: for those with another ground, which is named behind it.
        captions: file name -> template of its own, say "a photo of <S*> {class} on the beach".
        subject: whose photos they are.

    Raises:
        InputError: a caption of a photo that is not there.
    """
    own = of_photos(captions, [view.photo for view in views], f"subjects.{subject}.captions")
    each = [
        with_class(f"{on_ground} {view.ground}" if view.ground else own.get(same_name(view.photo), template), noun)
        for view in views
    ]
    prompts = list(dict.fromkeys(each))
    return prompts, [prompts.index(prompt) for prompt in each]


def of_photos(values: Mapping[str, T], photos: Iterable[str], parameter: str) -> dict[str, T]:
    """What a parameter says of single photos, by `same_name`.

    Raises:
        InputError: it names a photo that is not there.
    """
    found = {same_name(name): value for name, value in values.items()}
    unknown = sorted(set(found) - set(map(same_name, photos)))
    if unknown:
        raise InputError(f"{parameter} names photos that are not there: {', '.join(unknown)}")
    return found


def same_name(name: str) -> str:
    """A file's name in one spelling: macOS writes é as two characters."""
    return unicodedata.normalize("NFC", name)


def with_subject(template: str, noun: str) -> str:
    """A prompt of `prompt_sets`, say "a {subject} in the snow", that names the subject."""
    return template.replace("{subject}", f"{IDENTIFIER} {noun}")


def without_identifier(prompt: str) -> str:
    """What the untuned network is asked for, and text encoders are: "a <S*> cat" -> "a cat"."""
    return prompt.replace(f"{IDENTIFIER} ", "")


def plain_prompts(prompt: str, noun: str) -> tuple[str, str]:
    """What prompt guidance compares: a subject's prompt without the identifier, and its class alone."""
    return without_identifier(prompt), f"a photo of {noun}"


def check_prompt(prompt: str, has_subject: bool) -> None:
    """Raises ValueError: the prompt is empty, or its identifier has nothing to stand for."""
    if not prompt.isprintable() or (not prompt.isascii() and not _is_text(prompt)):
        raise ValueError("the prompt holds characters that are no text: write it again")
    if len(prompt) > LONGEST:
        raise ValueError(f"the prompt has {len(prompt)} characters: shorten it to {LONGEST}")
    if not prompt.strip():
        raise ValueError(f"the prompt is empty: write what to paint, say 'a {IDENTIFIER} cat in the snow'")
    if not has_subject and IDENTIFIER in prompt:
        raise ValueError(f"the prompt holds {IDENTIFIER}, but no subject is chosen")
    odd = re.findall(r"<[^<>]*>|\{[^{}]*\}", prompt.replace(IDENTIFIER, ""))
    if odd:
        raise ValueError(f"the prompt holds {odd[0][:40]}; the identifier is written {IDENTIFIER}")


def _is_text(prompt: str) -> bool:
    """Whether it can be written down: the command line hands over broken encodings as lone surrogates."""
    try:
        return bool(prompt.encode())
    except UnicodeEncodeError:
        return False
