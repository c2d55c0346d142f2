"""dvc.yaml says what the stage table says, no more and no less."""

import pytest
from ruamel.yaml import YAML

from arbooth.params import Params
from arbooth.stages import TABLE
from tests.conftest import ROOT

GRAPH = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
OVER = {"subject": "${subjects}", "class": "${classes}", "all": None}


def names(entries):
    return {next(iter(e)) if isinstance(e, dict) else e for e in entries}


def as_in_dvc(path):
    return path.replace("{key}", "${key}").replace("{class}", "${item.class}")


@pytest.mark.parametrize("name", TABLE)
def test_stage(name):
    stage, entry = TABLE[name], GRAPH[name]
    assert entry.get("foreach") == OVER[stage.over]
    body = entry.get("do", entry)
    assert body["cmd"] == f"arbooth stage {name}" + ("" if stage.over == "all" else " ${key}")
    own = {
        "subject": {"subjects": "subjects.${key}", "classes": "classes.${item.class}"},
        "class": {"classes": "classes.${key}"},
        "all": {},
    }
    assert set(body["params"]) == {own[stage.over].get(section, section) for section in stage.params}
    writes = names([*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])])
    assert writes == {as_in_dvc(path) for path in stage.writes.values()}
    data = {d for d in body["deps"] if d.startswith(("artifacts", "photos"))}
    assert data == {as_in_dvc(path) for path in stage.reads.values()}
    assert f"arbooth/stages/{name}.py" in body["deps"]
    assert ("bases/${base}.json" in body["deps"]) == ("base" in stage.params and name != "publish")
    assert all((ROOT / d).exists() for d in body["deps"] if d.startswith("arbooth"))


def test_no_other_stages():
    assert list(GRAPH) == list(TABLE)


def test_sections_exist_and_no_parameter_bears_a_name_that_dvc_ignores():
    assert {s for stage in TABLE.values() for s in stage.params} == set(Params.model_fields)
    for model in [
        Params,
        *(f.annotation for f in Params.model_fields.values() if hasattr(f.annotation, "model_fields")),
    ]:
        assert not {"size", "nfiles"} & set(model.model_fields)


def test_every_subject_stage_watches_its_base():
    text = (ROOT / "dvc.yaml").read_text()
    assert text.count("bases/${base}.json") == sum("base" in s.params and s.name != "publish" for s in TABLE.values())
