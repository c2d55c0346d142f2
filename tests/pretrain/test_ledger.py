"""A training is one MLflow run, and goes on only with what it began with."""

import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf

from arbooth.errors import InputError
from pretrain.ledger import key_of, logged


def params(**more):
    return OmegaConf.create({"steps": 20, "decay": 10, "rate": 0.1, **more})


def test_the_key_covers_parameters_inputs_and_words_but_not_the_length(tmp_path):
    file = tmp_path / "pictures.npy"
    file.write_bytes(b"a")
    key = key_of(params(), file, words=["cat"])
    assert key == key_of(params(steps=99, decay=1), file, words=["cat"])
    assert key != key_of(params(rate=0.2), file, words=["cat"])
    assert key != key_of(params(), file, words=["cat", "dog"])
    file.write_bytes(b"b")
    assert key != key_of(params(), file, words=["cat"])


def test_one_run_through_a_kill(tmp_path):
    path = tmp_path / "net.pt"
    with pytest.raises(KeyboardInterrupt), logged(path, params(), "k", False) as ledger:
        path.write_bytes(b"")
        ledger.log(10, {"loss": 1.0})
        raise KeyboardInterrupt
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_run(ledger.run).info.status == "KILLED"
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"png")
    with logged(path, params(steps=40), "k", False, sheet) as again:
        again.log(20, {"loss": 0.5})
    kept = client.get_run(again.run)
    assert again.run == ledger.run and kept.info.status == "FINISHED" and kept.data.params == {"rate": "0.1"}
    assert [m.step for m in client.get_metric_history(again.run, "loss")] == [10, 20]
    assert kept.info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())


def test_other_inputs_are_refused_unless_asked_for(tmp_path):
    path = tmp_path / "net.pt"
    with logged(path, params(), "k", False):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="trained with other parameters"), logged(path, params(), "other", False):
        pass
    with logged(path, params(), "other", True):
        pass
    with logged(path, params(), "other", False):
        pass


def test_a_training_without_a_key_is_refused(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(InputError, match="delete it"), logged(tmp_path / "net.pt", params(), "k", False):
        pass
