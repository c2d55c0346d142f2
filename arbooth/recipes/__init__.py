"""Recipes: values for a purpose, each a small YAML file over the params.yaml beside them."""

from __future__ import annotations

from pathlib import Path

from arbooth.errors import InputError

HERE = Path(__file__).resolve().parent
DEFAULTS = HERE / "params.yaml"


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.yaml") if path != DEFAULTS)


def params_of(recipe: str = "embedded") -> str:
    """The text of a new project's params.yaml.

    Raises:
        InputError: no such recipe.
    """
    import yaml

    from arbooth.edits import set_values

    if recipe not in names():
        raise InputError(f"no recipe {recipe!r}: one of {', '.join(names())}")
    values = yaml.safe_load((HERE / f"{recipe}.yaml").read_text(encoding="utf-8")) or {}
    return set_values(DEFAULTS.read_text(encoding="utf-8"), values)
