"""Benchmarks: what prompts ask for, intervals, and a small one from end to end."""

import json
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from arbooth.benchmark.run import defaults, merged, prepare, run_benchmark, settings_of
from arbooth.benchmark.score import ANCHORS, asked, paint_floor
from arbooth.benchmark.statistics import interval, summed
from arbooth.errors import InputError
from arbooth.metrics.judge import load_judge
from arbooth.params import load_params
from arbooth.project import Project
from tests.conftest import FAST, ROOT, arbooth

MINI = ROOT / "benchmarks" / "mini"


def test_prompts_are_understood_by_the_judges_words():
    labels = load_judge().labels
    assert asked("a red cat wearing a crown on a red rug", labels) == {
        "scene": "on a red rug",
        "accessory": "a crown",
        "colour": "red",
    }
    assert asked("a cat on a red rug", labels) == {"scene": "on a red rug"}
    assert asked("a small cat on the left at night", labels) == {
        "scene": "at night",
        "size": "small",
        "place": "on the left",
    }
    assert asked("an orange cat", labels) == {"colour": "orange"}
    assert asked("a bored cat", labels) == {}


@pytest.mark.parametrize("name, prompts, fewest", [("mini", 31, 12), ("tune", 12, 4)])
def test_every_prompt_asks_for_a_place_and_every_subject_is_whole(name, prompts, fewest):
    labels, source = load_judge().labels, ROOT / "benchmarks" / name
    params = OmegaConf.load(source / "params.yaml")
    templates = list(params.prompt_sets[name])
    assert len(templates) == len(set(templates)) == prompts
    assert all("scene" in asked(p.replace("{subject}", "cat"), labels) for p in templates)
    drawings = json.loads((source / "drawings.json").read_text())
    assert list(drawings) == list(params.subjects) and len(drawings) >= fewest
    for subject in drawings:
        assert len(list((source / "photos" / subject).iterdir())) == 8
        noun = params.subjects[subject]["class"]
        answered = [row["prompt"] for row in json.loads((source / "held" / subject / "index.json").read_text())]
        assert answered == [p.replace("{subject}", f"<S*> {noun}") for p in templates]


def test_methods_are_tuned_on_subjects_outside_the_benchmark():
    drawings = [json.loads((ROOT / "benchmarks" / name / "drawings.json").read_text()) for name in ("mini", "tune")]
    mini, tune = ({name.partition("/")[2] for name in own.values()} for own in drawings)
    assert not mini & tune


@pytest.mark.parametrize("name", ["mini", "tune"])
def test_every_setting_of_every_study_is_valid(name):
    source = ROOT / "benchmarks" / name
    for study in OmegaConf.load(source / "studies.yaml"):
        for setting, overrides in settings_of(source, study).items():
            overrides.pop("photos", None)
            merged_text = OmegaConf.to_yaml(merged(Project(ROOT), source, None, overrides))
            assert load_params(f"{study}-{setting}.yaml", text=merged_text).subjects


@pytest.mark.parametrize("between, within", [(0.2, 0.1), (0.0, 0.5)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(between, within):
    rng, hits, widths = np.random.default_rng(0), 0, []
    for trial in range(200):
        subjects = rng.normal(0.5, between, 16)
        mean, low, high = interval([list(rng.normal(own, within, 20)) for own in subjects], seed=trial)
        assert low < mean < high
        hits += low <= 0.5 <= high
        widths.append(high - low)
    assert 0.85 <= hits / 200 <= 0.98
    wanted = 2 * 1.96 * ((between**2 + within**2 / 20) / 16) ** 0.5
    assert 0.8 * wanted < np.mean(widths) < 1.1 * wanted


def test_equal_values_have_no_interval():
    assert interval([[1.0, 1.0], [1.0]]) == (1.0, 1.0, 1.0)


def test_sums_keep_every_subject_and_leave_out_what_it_lacks():
    own = summed({"a": {"scene": [1.0, 0.0]}, "b": {"scene": [1.0], "colour": [0.0]}})
    assert own["scene"]["mean"] == 0.75 and own["scene"]["subjects"] == {"a": 0.5, "b": 1.0}
    assert own["colour"]["subjects"] == {"b": 0.0}


def copy_benchmark(project, **more):
    """The real benchmark in a throw-away project, with two prompts."""
    folder = project / "benchmarks" / "mini"
    shutil.copytree(MINI, folder, ignore=shutil.ignore_patterns("runs", "results"))
    params = OmegaConf.load(folder / "params.yaml")
    params.prompt_sets.mini = ["a {subject} in the snow", "a red {subject} on the grass"]
    params.generate.images_per_prompt, params.generate.class_images = 1, 2
    OmegaConf.save(params, folder / "params.yaml")
    for index in folder.glob("held/*/index.json"):
        kept = [row for row in json.loads(index.read_text()) if row["file"] in ("00.png", "22.png")]
        index.write_text(json.dumps(kept))
    OmegaConf.save({"default": {"arbooth": {"photos": 2}}, **more}, folder / "studies.yaml")
    return folder


def test_a_setting_is_a_project_with_the_shipped_defaults(project):
    source = copy_benchmark(project)
    folder = source / "runs" / "short"
    prepare(Project(project), source, folder, {"finetune.steps": 7, "photos": 3, "subjects.*.background": "remove"}, subjects=2)
    params = OmegaConf.load(folder / "params.yaml")
    assert params.finetune.steps == 7 and params.prior.samples == FAST["prior.samples"]
    assert {subject.background for subject in params.subjects.values()} == {"remove"}
    assert list(params.subjects) == ["black-cat", "guide-dog"] and list(params.classes) == ["cat", "dog"]
    assert len(list((folder / "photos" / "black-cat").iterdir())) == 3
    for odd in ("finetune.stepz", "subjects.black-cat.ground"):
        with pytest.raises(InputError, match=f"no parameter {odd}"):
            prepare(Project(project), source, folder, {odd.replace("black-cat", "*"): 7})


def test_a_setting_prepared_again_holds_what_it_says(project):
    source = copy_benchmark(project)
    folder = source / "runs" / "default" / "arbooth"
    prepare(Project(project), source, folder, {"photos": 5}, subjects=1)
    (folder / "dvc.yaml").write_text("stages: {}")
    prepare(Project(project), source, folder, {"photos": 3}, subjects=1)
    assert len(list((folder / "photos" / "black-cat").iterdir())) == 3
    assert "summarize" in (folder / "dvc.yaml").read_text()
    assert "__pycache__" in (folder / ".dvcignore").read_text()


def test_the_floor_is_painted_anew_when_what_it_answers_changes(project):
    source = copy_benchmark(project)
    params = defaults(Project(project), source, 1)
    folder = source / "runs" / "floor" / "cat"
    paint_floor(Project(project), params, "black-cat", folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    stamp = (folder / "0000.png").stat().st_mtime_ns
    guided = params.generate.model_copy(update={"prompt_guidance": 3.0})  # toward what a subject's prompt adds: not here
    for same in (params, params.model_copy(update={"generate": guided})):
        paint_floor(Project(project), same, "black-cat", folder)
        assert (folder / "0000.png").stat().st_mtime_ns == stamp
    paint_floor(Project(project), params.model_copy(update={"seed": 5}), "black-cat", folder)
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert before.keys() == after.keys() and before["0000.png"] != after["0000.png"]


def test_settings_of_a_study_have_their_common_parameters(project):
    common = {"common": {"finetune.steps": 3}, "a": None, "b": {"finetune.steps": 5}}
    source = copy_benchmark(project, shared=common)
    assert settings_of(source, "shared") == {"a": {"finetune.steps": 3}, "b": {"finetune.steps": 5}}


def test_what_is_not_there_is_named(project):
    source = copy_benchmark(project, **{"odd": {"floor": {}}, "empty": {}, "plain": {"arbooth": None, 100: {}}})
    assert settings_of(source, "plain") == {"arbooth": {}, "100": {}}
    with pytest.raises(InputError, match="names no setting"):
        run_benchmark(Project(project), source, "empty")
    with pytest.raises(InputError, match="no study 'other'.*known: default, odd"):
        run_benchmark(Project(project), source, "other")
    with pytest.raises(InputError, match="can't be named 'floor'"):
        run_benchmark(Project(project), source, "odd")
    with pytest.raises(InputError, match="no benchmark at .*known: mini"):
        run_benchmark(Project(project), source.parent / "maxi", "default")


@pytest.mark.heavy
def test_a_small_benchmark_runs_once_and_then_only_reads(project):
    source = copy_benchmark(project)
    first = arbooth("benchmark", "mini", "--subjects", "2", cwd=project).stdout
    rows = json.loads((source / "results" / "default-first-2.json").read_text())
    assert [row["setting"] for row in rows] == ["arbooth", "floor", "ceiling", "tokenizer"]
    results = {row["setting"]: row["metrics"] for row in rows}
    assert set(results["arbooth"]["I_embedded"]["subjects"]) == {"black-cat", "guide-dog"}
    asked = {"identity", "identity_scene", "scene", "colour", "drift", "PRES_embedded"}
    assert asked | {"seconds_per_image", "trained_millions"} <= set(results["arbooth"])
    # True pictures are told from all other drawings, and are nearer to the photos than what an untuned base paints.
    assert results["ceiling"]["identity"]["mean"] == 1.0
    floor, tokenizer, ceiling = (results[anchor]["I_embedded"]["mean"] for anchor in ANCHORS)
    assert floor < tokenizer < ceiling
    for name in ("black-cat", "guide-dog"):
        with Image.open(source / "runs" / "tokenizer" / name / "00.png") as image:
            assert image.size == (128, 128)
    again = arbooth("benchmark", "mini", "--subjects", "2", cwd=project).stdout
    ran = [line for line in again.splitlines() if line.startswith("Running stage")]
    assert "Running stage 'subjects/black-cat/dvc.yaml:finetune'" in first
    assert set(ran) <= {"Running stage 'stamp':"}, ran
    assert json.loads((source / "results" / "default-first-2.json").read_text()) == rows
