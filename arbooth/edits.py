"""Edits of params.yaml in its own text: what is not touched keeps every comment, blank line and quote.

The YAML library says where things stand; lines are then added, taken out, or given another value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from arbooth.data.files import whole_file
from arbooth.errors import InputError
from arbooth.params import load_params


def edit_params(path: Path, change: Callable[[str], str]) -> None:
    """Change a params.yaml in place; the result must be valid, or nothing changes.

    Raises:
        InputError: the result is invalid.
    """
    text = change(path.read_text(encoding="utf-8"))
    load_params(path, text=text)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def add_entry(text: str, section: str, name: str, values: Mapping[str, Any]) -> str:
    """An entry at the end of a top-level mapping.

    Raises:
        InputError: the section is written in a form that lines can't be added to.
    """
    node, lines = _section(text, section), text.splitlines()
    entries = node.value if isinstance(node, yaml.MappingNode) else []
    if entries and node.flow_style:
        raise InputError(f"`{section}` is written between braces: put each entry on a line of its own")
    indent = entries[0][0].start_mark.column if entries else 2
    new = [f"{' ' * indent}{_flow(name)}:"]
    new += [f"{' ' * (indent + 2)}{key}: {_flow(value)}" for key, value in values.items()]
    if entries:
        at = _last_line(entries[-1][1], lines) + 1
    else:
        at = node.start_mark.line + 1
        lines[at - 1] = _cut(lines[at - 1], node)
    return "\n".join([*lines[:at], *new, *lines[at:]]) + "\n"


def remove_entry(text: str, section: str, name: str) -> str:
    """Without an entry of a top-level mapping; one that is emptied becomes `{}`.

    Raises:
        InputError: there is no such entry on lines of its own.
    """
    kept = {key.value for key, _ in _section(text, section).value} - {name}
    if len(kept) == len(_section(text, section).value) or _section(text, section).flow_style:
        raise InputError(f"`{section}` has no entry {name!r} on lines of its own")
    return only(text, section, kept)


def only(text: str, section: str, names: Iterable[str]) -> str:
    """With these entries of a top-level mapping alone; one that is emptied becomes `{}`."""
    key, node = next((key, value) for key, value in _root(text).value if key.value == section)
    lines, kept = text.splitlines(), set(names)
    gone = [(k.start_mark.line, _last_line(v, lines)) for k, v in node.value if k.value not in kept]
    if gone and len(gone) == len(node.value):
        above = key.end_mark
        line = lines[above.line]
        lines[above.line] = f"{line[: above.column + 1]} {{}}{line[above.column + 1 :]}"
    for first, last in reversed(gone):
        del lines[first : last + 1]
    return "\n".join(lines) + "\n"


def set_values(text: str, values: Mapping[str, Any]) -> str:
    """Other values by dotted name, each in place of the one that is there.

    Raises:
        InputError: no such name, or its value is a block of lines.
    """
    for name, value in values.items():
        node = _root(text)
        for part in name.split("."):
            below = {key.value: child for key, child in node.value} if isinstance(node, yaml.MappingNode) else {}
            if part not in below:
                raise InputError(f"params.yaml has no {name}")
            node = below[part]
        if isinstance(node, yaml.CollectionNode) and not node.flow_style:
            raise InputError(f"{name} is a block of lines: edit it by hand")
        text = text[: node.start_mark.index] + _flow(value) + text[node.end_mark.index :]
    return text


def _root(text: str) -> yaml.Node:
    return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _section(text: str, section: str) -> yaml.Node:
    return next(value for key, value in _root(text).value if key.value == section)


def _last_line(node: yaml.Node, lines: list[str]) -> int:
    """The last line of a value's content, without the comments and blank lines that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        key, value = node.value[-1]
        return max(key.end_mark.line, _last_line(value, lines))
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return _last_line(node.value[-1], lines)
    last = node.end_mark.line
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        last -= 1  # a block of text ends where the next thing begins
        while last > node.start_mark.line and not lines[last].strip():
            last -= 1
    return last


def _cut(line: str, node: yaml.Node) -> str:
    """A line without an empty value, `{}` or nothing."""
    return (line[: node.start_mark.column].rstrip() + line[node.end_mark.column :]).rstrip()


def _flow(value: Any) -> str:
    """A value on one line, quoted where a reader of YAML 1.1 or 1.2 would take it for something else."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    # 1e5 is a word in YAML 1.1, which PyYAML writes, and a number in YAML 1.2, which DVC reads.
    return f"'{text}'" if isinstance(value, str) and text == value and not value[:1].isalpha() else text
