"""Which layers move, and what each scale holds."""

import csv

import pytest
import torch
from PIL import Image

from arbooth.benchmark.analyses import averaged, changes, layer_changes, over_subjects, scale_changes, scale_ranges
from arbooth.errors import InputError
from arbooth.method.layers import WHOLE_LAYERS
from arbooth.project import Project
from tests.conftest import arbooth, dvc


def test_changes_are_relative_to_the_size_of_the_weights():
    before = {f"blocks.{b}.{k}.weight": torch.full((4,), 2.0) for b in range(2) for k in WHOLE_LAYERS}
    after = {name: value.clone() for name, value in before.items()}
    after["blocks.1.feed_forward.weight"] *= 1.25
    rows = changes(before, after.items(), 2)
    assert len(rows) == 6
    assert {(r["block"], r["kind"]): r["change"] for r in rows if r["change"]} == {(1, "feed_forward"): 0.25}


def test_several_subjects_are_averaged():
    tables = [[{"block": 0, "change": 0.1}], [{"block": 0, "change": 0.3}]]
    assert averaged(tables[:1]) == tables[0]
    (row,) = averaged(tables)
    assert row == {"block": 0, "change": pytest.approx(0.2), "change std": pytest.approx(0.02**0.5)}


def test_ranges_hold_each_scale_alone_and_every_beginning_and_end():
    assert scale_ranges(3) == [
        ("alone", 0, 1),
        ("alone", 1, 2),
        ("alone", 2, 3),
        ("up to", 0, 1),
        ("up to", 0, 2),
        ("from", 1, 3),
        ("from", 2, 3),
    ]


def test_a_subject_must_be_there(project):
    with pytest.raises(InputError, match=r"no subject 'nobody'.*known: poodle"):
        layer_changes(Project(project), "nobody")
    with pytest.raises(InputError, match=r"no subject 'nobody'"):
        over_subjects(Project(project), lambda *_: pytest.fail("measured too early"), ["poodle", "nobody"])
    with pytest.raises(InputError, match="dvc repro"):
        scale_changes(Project(project), "poodle")


@pytest.mark.heavy
def test_both_analyses_from_the_command_line(project):
    dvc("repro", "subjects/poodle/dvc.yaml:finetune", cwd=project)
    said = arbooth("analyze", "layers", "poodle", cwd=project).stdout
    rows = list(csv.DictReader((project / "outputs/poodle/layers.csv").open()))
    assert {row["kind"] for row in rows} == set(WHOLE_LAYERS) and all(0 < float(row["change"]) < 1 for row in rows)
    assert "layers.png" in said
    arbooth("analyze", "scales", "poodle", cwd=project)
    rows = list(csv.DictReader((project / "outputs/poodle/scales.csv").open()))
    scales = [str(number) for number in range(1, 9)]
    first = ["1", *(f"1-{last}" for last in scales[1:-1])]
    last = [*(f"{number}-8" for number in scales[1:-1]), "8"]
    assert [row["scales"] for row in rows[::2]] == [*scales, *first, *last]
    assert all(float(row["I_embedded"]) < 1 and float(row["distance"]) > 0 for row in rows)
    assert all(0 <= float(row["scene"]) <= 1 for row in rows)
    for name, width in (("layers", 816), ("scales", 1872)):
        with Image.open(project / f"outputs/poodle/{name}.png") as image:
            assert image.size == (width, 432)
