"""A real MLflow database."""

import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from arbooth.data.adapters import Adapter, read_adapter, write_adapter
from arbooth.data.bases import load_base
from arbooth.data.files import write_json
from arbooth.errors import InputError
from arbooth.registry.ledger import fetch, follow_move, ledger, lost_versions
from arbooth.registry.publish import Files, check_gate, publish
from arbooth.stages.finetune import write_curves

GATE = SimpleNamespace(experiment="tests", minimum={"I_embedded": 0.5}, maximum={})
SAMPLING = {"guidance": 3.0, "temperature": 0.5, "top_k": 900, "top_p": 0.97}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def files(tmp_path):
    """What the stages would have left of one subject."""
    base = load_base("embedded")
    own = Files(*(tmp_path / n for n in ("adapter.safetensors", "curves", "sheet.png", "metrics.json", "prompts.csv")))
    write_adapter(own.adapter, Adapter(torch.ones(2, base.config.text_width), {}, base.hash, "cat1", "cat", {}))
    write_curves(own.curves, [{"step": k, "loss": 1.0 / k, "scale_1": 0.5} for k in range(1, 4)])
    own.sheet.write_bytes(b"png")
    write_json(own.metrics, {"I_embedded": 0.7, "seconds_per_image": 0.1})
    own.prompts.write_text("prompt\n")
    return own


def put(files, uri, tmp_path, subject="cat1", gate=GATE, **params):
    base = load_base("embedded")
    if files.sheet.exists():
        write_adapter(files.adapter, replace(read_adapter(files.adapter), subject=subject))
    return publish(subject, "cat", files, base, {"finetune": {"steps": 3}, **params}, SAMPLING, gate, uri)


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
    strict = SimpleNamespace(experiment="tests", minimum={"I_embedded": 0.9}, maximum={})
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
    assert check_gate({"a": 1.0}, {"a": 1.0}, {"a": 1.0}) == []
    assert check_gate({"a": 1.0}, {}, {"a": 0.5}) == ["a is 1.0, must be at most 0.5"]
    assert check_gate({}, {"b": 0.1}, {}) == ["b is missing, must be at least 0.1"]
    assert check_gate({"a": float("nan")}, {"a": 0.1}, {}) == ["a is nan, must be at least 0.1"]


def test_missing_files_and_unknown_models_are_one_sentence(files, uri, tmp_path):
    files.sheet.unlink()
    with pytest.raises(InputError, match=r"sheet.png not there"):
        put(files, uri, tmp_path, "cat4")
    with pytest.raises(InputError, match="MLflow at sqlite"):
        fetch("models:/arbooth-nobody@champion", uri)


def test_a_version_whose_files_are_gone_is_logged_anew(files, uri, tmp_path):
    first = put(files, uri, tmp_path, "cat7")
    with ledger(uri) as client:
        source = client.get_model_version("arbooth-cat7", first.version).source
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


def test_a_missing_driver_names_the_extra(monkeypatch):
    import importlib.util

    if importlib.util.find_spec("psycopg2"):
        pytest.skip("the driver is installed")
    with pytest.raises(InputError, match=r"arbooth\[postgres\]"), ledger("postgresql://user:hunter2@127.0.0.1:9/db"):
        pass
