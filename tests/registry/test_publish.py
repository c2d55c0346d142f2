"""A real MLflow database."""

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version as version_of
from types import SimpleNamespace

import pytest
import torch
from sqlalchemy import Engine

from arbooth.data.adapters import Adapter, read_adapter, write_adapter
from arbooth.data.bases import load_base
from arbooth.data.files import write_json
from arbooth.errors import InputError
from arbooth.registry.gate import check_bounds, compare, promote, rollback
from arbooth.registry.ledger import fetch, follow_move, ledger, lost_versions
from arbooth.registry.publish import Entry, Files, Origin, publish
from arbooth.stages.finetune import write_curves
from tests.services import create_database, mlflow_server, postgres

GATE = SimpleNamespace(experiment="tests", minimum={"I_embedded": 0.5}, maximum={}, tolerance={})
SAMPLING = {"guidance": 3.0, "temperature": 0.5, "top_k": 900, "top_p": 0.97}


COMMITTED = Origin("c" * 40, True, {"subjects/cat1/dvc.lock": "stages: {}\n"})


@pytest.fixture(scope="module", params=["a file", "PostgreSQL", "a server"])
def uri(request, tmp_path_factory):
    """Every kind of address that people use."""
    folder = tmp_path_factory.mktemp("mlflow")
    if request.param == "a file":
        yield f"sqlite:///{folder}/mlflow.db"
        return
    with postgres(folder / "postgres") as server:
        database = create_database(server, "mlflow")
        if request.param == "PostgreSQL":
            yield database
            return
        with mlflow_server(database, folder) as address:
            yield address


@pytest.fixture
def files(tmp_path):
    """What the stages would have left of one subject."""
    base = load_base("embedded")
    own = Files(
        *(tmp_path / n for n in ("images", "adapter.safetensors", "curves", "samples.png", "sheet.png", "metrics.json", "prompts.csv"))
    )
    write_adapter(own.adapter, Adapter(torch.ones(2, base.config.text_width), {}, base.hash, "cat1", "cat", {}))
    write_curves(own.curves, [{"step": k, "loss": 1.0 / k, "scale_1": 0.5} for k in range(1, 4)])
    own.sheet.write_bytes(b"png")
    write_json(own.metrics, {"I_embedded": 0.7, "seconds_per_image": 0.1})
    own.prompts.write_text("kind,prompt\nsubject,a cat\n")
    own.images.mkdir()
    own.samples.write_bytes(b"sample")
    (own.images / "00.png").write_bytes(b"photo")
    write_json(own.images / "manifest.json", {"photos": [{}], "digest": "d" * 64})
    return own


def put(files, uri, tmp_path, subject="cat1", gate=GATE, origin=COMMITTED, **params):
    base = load_base("embedded")
    if files.sheet.exists():
        write_adapter(files.adapter, replace(read_adapter(files.adapter), subject=subject))
    record = {"finetune": {"steps": 3}, **params}
    return next(
        publish(
            [Entry(subject, "cat", files, base, record, SAMPLING, "embedded abc", gate, origin)],
            uri,
            tmp_path.parent / "mlartifacts",
        )
    )


def test_publishing_logs_registers_and_aliases_once(files, uri, tmp_path):
    first = put(files, uri, tmp_path)
    assert (first.new, first.version, first.champion) == (True, "1", True)
    write_json(files.metrics, {"I_embedded": 0.7, "seconds_per_image": 0.9})  # only slower
    again = put(files, uri, tmp_path)
    assert (again.new, again.run_id) == (False, first.run_id)
    with ledger(uri) as client:
        run = client.get_run(first.run_id)
        assert run.data.params["finetune.steps"] == "3"
        assert run.data.metrics["I_embedded"] == 0.7
        assert [m.value for m in client.get_metric_history(first.run_id, "curve/loss")] == [
            1.0,
            0.5,
            pytest.approx(1 / 3),
        ]
        assert {a.path for a in client.list_artifacts(first.run_id)} >= {"sheet.png", "metrics.json", "prompts.csv"}
        assert len(client.search_model_versions("name = 'arbooth-cat1'")) == 1
    served = read_adapter(fetch("models:/arbooth-cat1@champion", uri) / "artifacts" / "adapter.safetensors")
    assert torch.equal(served.identifier, read_adapter(files.adapter).identifier)
    assert served.settings["sampling"] == SAMPLING  # it paints as it was judged


def test_the_gate_keeps_the_champion_and_old_content_brings_its_version_back(files, uri, tmp_path):
    put(files, uri, tmp_path, "cat2")
    write_json(files.metrics, {"I_embedded": 0.2})
    worse = put(files, uri, tmp_path, "cat2")
    assert (worse.version, worse.champion) == ("2", False)
    assert worse.gate == ["I_embedded is 0.2, must be at least 0.5"]
    with ledger(uri) as client:
        aliases = client.get_registered_model("arbooth-cat2").aliases
        assert {k: str(v) for k, v in aliases.items()} == {"candidate": "2", "champion": "1"}
    write_json(files.metrics, {"I_embedded": 0.7})
    back = put(files, uri, tmp_path, "cat2")
    assert (back.new, back.version, back.champion) == (False, "1", True)


def test_a_champion_that_somebody_moved_back_stays_there(files, uri, tmp_path):
    put(files, uri, tmp_path, "cat5")
    write_json(files.metrics, {"I_embedded": 0.8})
    assert put(files, uri, tmp_path, "cat5").version == "2"
    with ledger(uri) as client:
        client.set_registered_model_alias("arbooth-cat5", "champion", "1")
    assert not put(files, uri, tmp_path, "cat5").champion


def test_a_gate_that_is_loosened_lets_the_candidate_through(files, uri, tmp_path):
    strict = SimpleNamespace(experiment="tests", minimum={"I_embedded": 0.9}, maximum={}, tolerance={})
    assert not put(files, uri, tmp_path, "cat6", strict).champion
    assert put(files, uri, tmp_path, "cat6").champion


def test_passwords_of_the_address_are_not_told(files, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with pytest.raises(InputError) as error:
        put(files, "http://user:hunter2@127.0.0.1:9", tmp_path)
    assert "127.0.0.1:9" in str(error.value)
    assert "hunter2" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_run_in_the_environment_is_left_alone(files, uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert put(files, uri, tmp_path, "cat3").new


def test_gate_bounds():
    assert check_bounds({"a": 1.0}, {"a": 1.0}, {"a": 1.0}) == []
    assert check_bounds({"a": 1.0}, {}, {"a": 0.5}) == ["a is 1.0, must be at most 0.5"]
    assert check_bounds({}, {"b": 0.1}, {}) == ["b is missing, must be at least 0.1"]
    assert check_bounds({"a": float("nan")}, {"a": 0.1}, {}) == ["a is nan, must be at least 0.1"]


def test_missing_files_and_unknown_models_are_one_sentence(files, uri, tmp_path):
    files.sheet.unlink()
    with pytest.raises(InputError, match=r"sheet.png not there"):
        put(files, uri, tmp_path, "cat4")
    with pytest.raises(InputError, match="MLflow at "):
        fetch("models:/arbooth-nobody@champion", uri)


def test_a_version_whose_files_are_gone_is_logged_anew(files, uri, tmp_path):
    first = put(files, uri, tmp_path, "cat7")
    with ledger(uri) as client:
        source = client.get_model_version("arbooth-cat7", first.version).source
    if not source.startswith(("file://", "/")):
        pytest.skip("what a server keeps is the server's")
    shutil.rmtree(source.removeprefix("file://"))
    assert lost_versions(uri, ["arbooth-cat7"]) == ["arbooth-cat7 version 1"]
    again = put(files, uri, tmp_path, "cat7")
    assert (again.new, again.version, again.champion) == (True, "2", True)
    assert lost_versions(uri, ["arbooth-cat7"]) == []


def test_a_moved_project_finds_its_artifacts_again(files, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    put(files, f"sqlite:///{here}/mlflow.db", tmp_path)
    here.rename(there)
    moved = f"sqlite:///{there}/mlflow.db"
    with pytest.raises(InputError, match="the project was moved"):
        put(files, moved, tmp_path)
    assert follow_move(moved) == [(here / "mlartifacts").as_uri()]
    assert follow_move(moved) == []
    assert not put(files, moved, tmp_path).new
    assert (fetch("models:/arbooth-cat1@champion", moved) / "MLmodel").is_file()


def test_two_first_publishes_at_once_make_one_database(files, tmp_path):
    """MLflow's own migration of a fresh file can't run twice at a time."""
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    script = (
        "import sys; from arbooth.registry.ledger import ledger\nwith ledger(sys.argv[1]) as c: c.search_experiments()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, uri], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in started:
        assert process.wait(120) == 0, process.stderr.read()


def test_a_deleted_experiment_names_its_remedy(files, tmp_path):
    uri = f"sqlite:///{tmp_path}/deleted/mlflow.db"
    put(files, uri, tmp_path)
    with ledger(uri) as client:
        client.delete_experiment(client.get_experiment_by_name("tests").experiment_id)
    with pytest.raises(InputError, match="mlflow experiments restore -x 1"):
        put(files, uri, tmp_path, finetune={"steps": 9})


def test_a_callers_own_run_is_left_alone(files, uri, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/theirs.db")
    with mlflow.start_run() as theirs:
        assert put(files, uri, tmp_path, "cat8").new
        assert mlflow.active_run().info.run_id == theirs.info.run_id


def test_a_version_tells_where_it_came_from(files, uri, tmp_path):
    done = put(files, uri, tmp_path, "cat9")
    with ledger(uri) as client:
        version, run = client.get_model_version("arbooth-cat9", "1"), client.get_run(done.run_id)
        assert version.tags["git_commit"] == "c" * 40 and version.tags["encoders"] == "embedded abc"
        assert json.loads(version.tags["arbooth.locks"]) == COMMITTED.locks
        assert version.run_id == done.run_id and "a <S*> cat in the snow" in version.description
        assert run.info.status == "FINISHED" and run.inputs.dataset_inputs[0].dataset.digest == "d" * 36
        logged = {a.path for a in client.list_artifacts(done.run_id)}
        assert logged >= {"photos", "samples.png", "subjects", "sheet.png"}
        kind = client.get_experiment_by_name("tests").tags["mlflow.experimentKind"]
        assert kind == "custom_model_development"
    folder = fetch("models:/arbooth-cat9/1", uri)
    assert (folder / "code" / "arbooth" / "cli.py").is_file() and not (
        folder / "code" / "arbooth" / "embedded"
    ).exists()
    assert f"torch=={version_of('torch')}" in (folder / "requirements.txt").read_text().splitlines()
    assert json.loads((folder / "input_example.json").read_text())["inputs"][0]["prompt"] == "a photo of <S*> cat"
    put(files, uri, tmp_path, "cat9", origin=Origin("e" * 40, False), other=1)
    with ledger(uri) as client:
        assert client.get_model_version("arbooth-cat9", "2").tags["git_commit"] == "e" * 40 + ", with changes since"


def test_a_candidate_that_is_worse_than_the_champion_stays_one(files, uri, tmp_path):
    gate = SimpleNamespace(experiment="tests", minimum={}, maximum={}, tolerance={"I_embedded": 0.05, "PRES": 0.01})
    write_json(files.metrics, {"I_embedded": 0.7, "PRES": 0.1})
    assert put(files, uri, tmp_path, "cat10", gate).champion
    write_json(files.metrics, {"I_embedded": 0.66, "PRES": 0.1})
    assert put(files, uri, tmp_path, "cat10", gate).champion  # within the tolerance
    write_json(files.metrics, {"I_embedded": 0.9, "PRES": 0.2})
    worse = put(files, uri, tmp_path, "cat10", gate)
    assert (worse.version, worse.champion) == ("3", False)
    assert worse.gate == ["PRES is 0.2, the champion has 0.1: worse by more than 0.01"]
    assert promote(uri, "cat10", None, "looks better") == "arbooth-cat10: champion is version 3, was 2 (looks better)"
    assert put(files, uri, tmp_path, "cat10", gate).champion
    with ledger(uri) as client:
        assert client.get_model_version("arbooth-cat10", "3").tags["arbooth.promoted"].endswith("Z looks better")
    assert rollback(uri, "cat10") == "arbooth-cat10: champion is version 2, was 3 (rolled back by hand)"
    assert not put(files, uri, tmp_path, "cat10", gate).champion  # what somebody decided holds
    write_json(files.metrics, {"I_embedded": 0.9, "PRES": 0.1})
    files.prompts.write_text("kind,prompt\nsubject,a dog\n")
    other = put(files, uri, tmp_path, "cat10", gate)
    assert not other.champion and "other encoders or prompts" in other.gate[0]
    with pytest.raises(InputError, match=r"no version 9 \(known: 4, 3, 2, 1\)"):
        promote(uri, "cat10", "9")
    with pytest.raises(InputError, match="publish it first"):
        rollback(uri, "nobody")


def test_a_metric_that_is_missing_is_worse():
    nan = float("nan")
    said = ["a is nan, the champion has 1.0: worse by more than 0.5"]
    assert compare({"a": nan}, "e", {"a": 1.0}, "e", {"a": 0.5}) == said
    (said,) = compare({}, "e", {"a": 1.0}, "e", {"a": 0.5})
    assert said.startswith("a is not measured with these encoders")
    assert compare({"a": 0.5}, "e", {"a": 1.0}, "e", {"a": 0.5}) == compare({}, "e", {}, "f", {}) == []


def test_an_experiment_moves_no_alias(files, uri, tmp_path):
    first = put(files, uri, tmp_path, "cat11")
    tried = put(files, uri, tmp_path, "cat11", origin=Origin(experiment="brave-cat"), other=2)
    assert (tried.new, tried.version, tried.champion) == (True, "2", False)
    with ledger(uri) as client:
        aliases = client.get_registered_model("arbooth-cat11").aliases
        assert {k: str(v) for k, v in aliases.items()} == {"candidate": first.version, "champion": first.version}


@pytest.mark.parametrize("step", ["log_inputs", "log_model_artifacts", "create_model_version", "set_terminated"])
def test_a_failure_leaves_nothing_and_the_next_try_works(files, uri, tmp_path, monkeypatch, step):
    import mlflow

    subject = f"broken-{step.replace('_', '-')}"

    def fail(*_, **__):
        raise mlflow.exceptions.MlflowException("the ledger went away")

    with monkeypatch.context() as broken:
        broken.setattr(mlflow.MlflowClient, step, fail)
        with pytest.raises(InputError, match="the ledger went away"):
            put(files, uri, tmp_path, subject)
    with ledger(uri) as client:
        experiment = client.get_experiment_by_name("tests").experiment_id
        left = client.search_runs([experiment], f"tags.subject = '{subject}'")
        assert not left and not client.search_registered_models(f"name = 'arbooth-{subject}'")
    done = put(files, uri, tmp_path, subject)
    assert (done.version, done.champion) == ("1", True)


def test_what_a_killed_try_left_is_swept(files, uri, tmp_path):
    """The process ends where nothing can be undone: after the run was made, and after the model was."""
    put(files, uri, tmp_path, "cat12")  # the experiment is there
    for step in ("log_inputs", "finalize_logged_model", "create_model_version"):
        child = os.fork()
        if child == 0:
            import mlflow

            for engine in filter(lambda one: isinstance(one, Engine), gc.get_objects()):
                engine.dispose(close=False)  # a connection of its own: two processes can't share one
            setattr(mlflow.MlflowClient, step, lambda *_, **__: os._exit(9))
            try:
                put(files, uri, tmp_path, "cat13", other=3)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert put(files, uri, tmp_path, "cat13", other=3).version == "1"
    with ledger(uri) as client:
        experiment = client.get_experiment_by_name("tests").experiment_id
        assert len(client.search_runs([experiment], "tags.subject = 'cat13'")) == 1
        models = client.search_logged_models([experiment])
        assert len([m for m in models if subject_of_model(client, m) == "cat13"]) == 1


def subject_of_model(client, model):
    return client.get_run(model.source_run_id).data.tags["subject"]


def test_unchanged_subjects_cost_no_query_each(files, uri, tmp_path, monkeypatch):
    import mlflow

    entries = []
    for subject in [f"many-{k}" for k in range(4)]:
        put(files, uri, tmp_path, subject)
        own = tmp_path / "adapters" / f"{subject}.safetensors"  # `put` writes every subject's adapter into one file
        own.parent.mkdir(exist_ok=True)
        shutil.copy(files.adapter, own)
        entries.append(Entry(subject, "cat", replace(files, adapter=own), load_base("embedded"),
                             {"finetune": {"steps": 3}}, SAMPLING, "embedded abc", GATE))  # fmt: skip
    asked = []
    for name in [n for n in vars(mlflow.MlflowClient) if not n.startswith("_")]:
        method = getattr(mlflow.MlflowClient, name)
        counted = lambda self, *a, _name=name, _method=method, **k: (asked.append(_name), _method(self, *a, **k))[1]  # noqa: E731
        monkeypatch.setattr(mlflow.MlflowClient, name, counted)
    done = list(publish(entries, uri, tmp_path))
    assert len(done) == 4 and not any(d.new for d in done)
    assert sorted(asked) == ["search_experiments", "search_model_versions", "search_registered_models"]


def test_a_missing_driver_names_the_extra(monkeypatch):
    import importlib.util

    if importlib.util.find_spec("psycopg2"):
        pytest.skip("the driver is installed")
    with pytest.raises(InputError, match=r"arbooth\[postgres\]"), ledger("postgresql://user:hunter2@127.0.0.1:9/db"):
        pass
