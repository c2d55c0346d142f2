"""How prompts are made of a template, the class noun and the identifier."""

from __future__ import annotations

import re

from arbooth.model.identifier import IDENTIFIER

LONGEST = 2000


def with_class(template: str, noun: str) -> str:
    """A training template, say "a photo of <S*> {class}", with the noun in its place."""
    return template.replace("{class}", noun)


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
