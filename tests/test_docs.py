"""What the pages say is there: commands, files and parameters."""

import re

import pytest

from arbooth.cli import app
from arbooth.params import load_params
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "pretrain" / "README.md",
]


def known_commands():
    name = lambda c: c.name or c.callback.__name__.replace("_", "-")  # noqa: E731
    own = {(name(c),) for c in app.registered_commands}
    for group in app.registered_groups:
        own |= {(group.name, name(c)) for c in group.typer_instance.registered_commands}
    return own


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_exists(page):
    own = known_commands()
    used = re.findall(r"(?:^|`)arbooth ([a-z]+)(?: ([a-z]+))?", page.read_text(), re.MULTILINE)
    assert all((a,) in own or (a, b) in own for a, b in used), used


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_parameter_set_on_a_command_line_exists(page):
    for override in re.findall(r"-S ([a-z_.]+=\S+)", page.read_text()):
        key, value = override.split("=")
        if key != "evaluate.encoders" or value != "...":
            load_params(ROOT / "params.yaml", overrides=[override.strip("`,")])


def test_every_stage_parameter_is_explained():
    text = (ROOT / "docs" / "method.md").read_text()
    for name in load_params(ROOT / "params.yaml").finetune.model_dump():
        assert f"`{name}`" in text or f"`finetune.{name}`" in text, name


def test_every_setting_is_explained_and_no_other():
    from arbooth.settings import Settings

    known = {field.validation_alias or f"ARBOOTH_{name.upper()}" for name, field in Settings.model_fields.items()}
    rows = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    assert rows == known | {"ARBOOTH_PROJECT"}


def test_notice_names_every_source_of_art():
    import json

    notice = (ROOT / "NOTICE").read_text()
    for package in json.loads((ROOT / "pretrain" / "package.json").read_text())["dependencies"]:
        assert package in notice
