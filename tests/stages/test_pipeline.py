"""The main job, end to end, by `dvc repro` in a fresh repository."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from arbooth.data.adapters import read_adapter
from arbooth.data.pictures import read_origin
from arbooth.graph import TABLE
from arbooth.project import Project
from tests.conftest import arbooth, copy_project, dvc, enter, set_params


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A project after one `dvc repro`; tests that change it work on their own copy of its files."""
    folder = copy_project(tmp_path_factory.mktemp("whole") / "project", **{"finetune.sample_every": 2})
    done = dvc("repro", cwd=folder)
    assert "version 1 registered, candidate and champion" in done.stdout + done.stderr
    return folder


def repro(folder):
    done = dvc("repro", cwd=folder)
    return done.stdout + done.stderr


def ran(output):
    """Stages as "finetune@poodle"; the one that always runs first is left out."""
    names = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    return [re.sub(r"\w+/([^/]+)/dvc.yaml:(\w+)", r"\2@\1", name) for name in names if name != "stamp"]


def contents(folder, without=("samples", "timing", "evaluate", "report", "summary", "stamp")):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted((folder / "artifacts").rglob("*"))
        if p.is_file() and not any(k in str(p.relative_to(folder)) for k in without)
    }


def test_every_stage_leaves_what_the_table_says(whole):
    artifacts = whole / "artifacts"
    manifest = json.loads((artifacts / "preprocess" / "poodle" / "manifest.json").read_text())
    assert [p["photo"] for p in manifest["photos"]] == [f"0{i}.jpg" for i in range(5)]
    adapter = read_adapter(artifacts / "finetune" / "poodle.safetensors")
    assert (adapter.subject, adapter.noun, adapter.identifier.shape[0]) == ("poodle", "dog", 4)
    assert all(".cross_attention." in n or ".feed_forward." in n for n in adapter.parameters)
    rows = list(csv.DictReader((artifacts / "curves" / "poodle" / "scale_1.csv").open()))
    assert [r["step"] for r in rows] == ["1", "2", "3", "4"]
    samples = np.asarray(Image.open(artifacts / "samples" / "poodle.png"))
    assert samples.shape == (2 * 190 + 6, 4 * 166 + 6, 3)  # a row of four after steps 2 and 4
    assert (samples[30:190] != samples[220:380]).any()
    index = json.loads((artifacts / "generate" / "poodle" / "index.json").read_text())
    assert sum(r["kind"] == "class" for r in index) == 2
    first = artifacts / "generate" / "poodle" / index[0]["file"]
    record = read_origin(first)
    assert record["prompt"] == "a photo of <S*> dog"
    assert record["seed"] == 0 and record["base"] == "embedded" and len(record["adapter"]) == 64
    assert Image.open(first).size == (128, 128)
    metrics = json.loads((artifacts / "evaluate" / "poodle.json").read_text())
    assert {"I_embedded", "I_embedded_joint", "T_embedded", "PRES_embedded", "seconds_per_image"} <= set(metrics)
    assert "contact sheet of poodle (dog)" in (artifacts / "report" / "subjects" / "poodle.html").read_text()


def test_a_second_repro_redoes_nothing_and_publishes_nothing(whole):
    started = time.perf_counter()
    output = repro(whole)
    assert ran(output) == ["publish"]
    assert "version 1 unchanged" in output
    assert time.perf_counter() - started < 60


def test_metrics_and_plots_are_there_for_dvc(whole):
    shown = json.loads(dvc("metrics", "show", "--json", cwd=whole).stdout)
    assert any("evaluate/poodle.json" in name for name in shown[""]["data"])
    page = dvc("plots", "show", cwd=whole).stdout
    assert "index.html" in page
    html = (whole / "dvc_plots" / "index.html").read_text()
    assert "scale_1.csv" in html and "poodle.png" in html and "samples/poodle.png" in html


def test_the_same_parameters_give_the_same_bytes_anywhere(whole, tmp_path):
    """And sample pictures change nothing: the other one paints none."""
    other = copy_project(tmp_path / "other")
    for name, key in (
        ("preprocess", "poodle"),
        ("tokenize", "poodle"),
        ("prior", "dog"),
        ("finetune", "poodle"),
        ("generate", "poodle"),
    ):
        arbooth("stage", name, key, cwd=other)
    own, here = contents(whole), contents(other)
    assert {n for n in here if here[n] != own.get(n)} == set()
    assert {n for n in own if n not in here} == {"artifacts/prompts/poodle.csv"}


@pytest.mark.heavy
def test_users_own_photos_and_restored_results(whole, tmp_path):
    """A second subject runs alone; a changed parameter runs what depends on it; going back is free."""
    folder = tmp_path / "project"
    shutil.copytree(whole, folder, symlinks=True)
    for line in ("git config user.email a@b.c", "git config user.name a", "git add -A", "git commit -qm all"):
        subprocess.run(line.split(), cwd=folder, check=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, size in enumerate([(90, 120), (200, 80), (64, 64)]):
        Image.effect_noise(size, 60 + index).convert("RGB").save(photos / f"{index}.png")
    arbooth("subject", "add", "teapot", "--class", "teapot", "--photos", str(photos), cwd=folder)
    stages = ran(repro(folder))
    assert {s for s in stages if "@poodle" in s or "@dog" in s} == set()
    assert {"preprocess@teapot", "prior@teapot", "finetune@teapot", "evaluate@teapot", "summarize", "publish"} <= set(
        stages
    )
    report = (folder / "artifacts" / "report" / "index.html").read_text()
    assert "teapot</a> (teapot)" in report and "overall (2)" in report

    set_params(folder, **{"subjects.teapot.overrides": {"finetune": {"steps": 2}}})
    stages = ran(repro(folder))
    assert "finetune@teapot" in stages and "finetune@poodle" not in stages
    set_params(folder, **{"subjects.teapot.overrides": {}})
    output = repro(folder)
    assert "finetune@teapot" not in ran(output)
    assert "arbooth-teapot version 1 unchanged, candidate and champion" in output


@pytest.mark.heavy
def test_a_killed_run_resumes_to_the_same_bytes_and_tells_two_runs_apart(whole, tmp_path):
    """SIGTERM in the middle; a second start beside a running one is refused."""
    folder = copy_project(tmp_path / "project", **{"finetune.steps": 40, "finetune.sample_every": 10})
    for name in ("preprocess", "tokenize", "prior"):
        shutil.copytree(whole / "artifacts" / name, folder / "artifacts" / name)
    command = [sys.executable, "-m", "arbooth", "stage", "finetune", "poodle"]
    environment = {**os.environ, "ARBOOTH_PROJECT": str(folder), "ARBOOTH_CHECKPOINT_SECONDS": "0.1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    resume = folder / ".arbooth" / "resume" / "poodle.pt"
    deadline = time.time() + 120
    while not resume.exists() and time.time() < deadline:
        time.sleep(0.02)
    second = arbooth("stage", "finetune", "poodle", cwd=folder, check=False)
    assert second.returncode == 2 and f"already running as process {process.pid}" in second.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "run the same command again to resume" in process.stderr.read()
    assert resume.exists() and not (folder / "artifacts" / "finetune").exists()
    arbooth("stage", "finetune", "poodle", cwd=folder)
    assert not resume.exists()
    resumed = contents(folder, without=("prior",))
    assert Image.open(folder / "artifacts" / "samples" / "poodle.png").height == 4 * 190 + 6
    arbooth("stage", "finetune", "poodle", cwd=folder)
    assert contents(folder, without=("prior",)) == resumed


def test_a_stale_prior_is_refused(whole, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(whole, folder, symlinks=True)
    done = arbooth("stage", "finetune", "poodle", "prior.samples=3", cwd=folder, check=False)
    assert done.returncode == 2
    assert "stale: it was made with another prior" in done.stderr


def test_an_adapter_of_another_base_is_refused(whole, tmp_path):
    from arbooth.data.adapters import write_adapter

    folder = tmp_path / "project"
    shutil.copytree(whole, folder, symlinks=True)
    path = folder / "artifacts" / "finetune" / "poodle.safetensors"
    adapter = read_adapter(path)
    adapter.base = "0" * 64
    path.unlink()
    write_adapter(path, adapter)
    done = arbooth("generate", "poodle", "a <S*> dog", cwd=folder, check=False)
    assert done.returncode == 2
    assert "belongs to base 000000000000" in done.stderr


def test_the_python_door_writes_what_the_command_line_does(whole, tmp_path, monkeypatch):
    import arbooth as library

    folder = copy_project(tmp_path / "project")
    enter(folder, monkeypatch)
    params = library.load_params(folder / "params.yaml")
    written = library.run("preprocess", "poodle", params)
    assert written["images"] == folder / "artifacts" / "preprocess" / "poodle"
    for path in written["images"].iterdir():
        assert path.read_bytes() == (whole / "artifacts" / "preprocess" / "poodle" / path.name).read_bytes()


@pytest.mark.parametrize("name", TABLE)
def test_a_stage_reads_the_sections_that_the_table_names_and_no_other(whole, tmp_path, monkeypatch, name):
    import arbooth as library
    from arbooth.params import Params

    seen = set()

    class Recording(Params):
        def __getattribute__(self, name):
            if name in Params.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

    folder = tmp_path / "project"
    shutil.copytree(whole, folder, symlinks=True)
    shutil.rmtree(folder / "artifacts" / "finetune" if name == "finetune" else folder / "none", ignore_errors=True)
    monkeypatch.setattr("arbooth.stages.Params", Recording)
    key = {"subject": "poodle", "class": "dog", "all": None}[TABLE[name].over]
    library.run(name, key, project=Project(folder))
    assert seen == set(TABLE[name].sections)


def test_a_full_adapter_is_shrunk_and_painted_with(whole, tmp_path):
    shrink = ("adapter", "shrink", "poodle", "--out", str(tmp_path / "small.safetensors"), "--rank")
    refused = arbooth(*shrink, "8", cwd=whole, check=False)
    assert refused.returncode == 2 and "is of kind 'low-rank' already" in refused.stderr
    folder = tmp_path / "project"
    shutil.copytree(whole, folder, symlinks=True)
    set_params(folder, **{"finetune.rank": 0})
    arbooth("stage", "finetune", "poodle", cwd=folder)
    said = arbooth(*shrink, "8", cwd=folder)
    assert "lost of the change: " in said.stdout
    full, small = folder / "artifacts" / "finetune" / "poodle.safetensors", tmp_path / "small.safetensors"
    assert small.stat().st_size < 0.2 * full.stat().st_size and read_adapter(small, "poodle").kind == "low-rank"
    painted = arbooth("generate", str(small), "a <S*> dog", "-n", "1", "--out", str(tmp_path / "x"), cwd=folder)
    assert "seed0-0.png" in painted.stdout
    small.unlink()
    refused = arbooth(*shrink, "100000", cwd=folder, check=False)
    assert refused.returncode == 2 and "does not fit" in refused.stderr and not small.exists()


@pytest.mark.heavy
def test_whole_matrices_go_through_every_stage(whole, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(whole, folder, symlinks=True)
    set_params(folder, **{"finetune.rank": 0, "finetune.micro_batch": 1, "finetune.last_scale_chance": 0.5})
    set_params(folder, **{"generate.batch": 3})
    repro(folder)
    adapter = read_adapter(folder / "artifacts" / "finetune" / "poodle.safetensors", "poodle")
    assert adapter.kind == "full" and read_adapter(whole / "artifacts" / "finetune" / "poodle.safetensors").kind == "low-rank"
    done = arbooth("generate", "models:/arbooth-poodle@candidate", "a <S*> dog", "-n", "1", "--out", "x", cwd=folder)
    assert "seed0-0.png" in done.stdout


@pytest.mark.heavy
def test_bfloat16_runs_and_halves_the_adapter(whole, tmp_path):
    folder = copy_project(tmp_path / "project", compute="bfloat16", **{"finetune.steps": 2})
    shutil.copytree(whole / "artifacts" / "tokenize", folder / "artifacts" / "tokenize")
    for name, key in (("prior", "dog"), ("finetune", "poodle")):
        arbooth("stage", name, key, cwd=folder)
    sizes = [(p / "artifacts" / "finetune" / "poodle.safetensors").stat().st_size for p in (folder, whole)]
    assert sizes[0] < 0.6 * sizes[1]  # vectors stay in float32
    arbooth("generate", "poodle", "a <S*> dog", "-n", "1", cwd=folder)
    adapter = read_adapter(folder / "artifacts" / "finetune" / "poodle.safetensors")
    assert adapter.settings["compute"] == "bfloat16"
    assert {p.dtype for p in adapter.parameters.values() if p.ndim == 1} == {torch.float32}


@pytest.mark.heavy
@pytest.mark.parametrize("method", ["naive", "textual-inversion", "custom-diffusion", "dreambooth"])
def test_every_preset_fine_tunes(whole, tmp_path, method):
    folder = copy_project(tmp_path / "project", **{"finetune.method": method, "finetune.steps": 2})
    for name in ("tokenize", "prior"):
        shutil.copytree(whole / "artifacts" / name, folder / "artifacts" / name)
    arbooth("stage", "finetune", "poodle", cwd=folder)
    adapter = read_adapter(folder / "artifacts" / "finetune" / "poodle.safetensors")
    assert adapter.settings["method"] == method
    assert bool(adapter.parameters) == (method != "textual-inversion")
