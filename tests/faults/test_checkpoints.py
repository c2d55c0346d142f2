"""Official files of a base as downloads leave them."""

import shutil

import pytest
import torch

from tests.data.test_bases import public_autoencoder, public_transformer, text_folder
from tests.faults.harness import check, damaged, drawn, seeds

PARTS = ("infinity_2b_reg.pth", "infinity_vae_d32reg.pth", "flan-t5-xl/model.safetensors", "flan-t5-xl/config.json")


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """Official-looking files of a small network."""
    folder = tmp_path_factory.mktemp("official")
    torch.save(public_transformer()[1], folder / PARTS[0])
    torch.save({"vae": public_autoencoder()[1]}, folder / PARTS[1])
    text_folder(folder / "flan-t5-xl")
    return folder


@pytest.mark.parametrize("number", seeds("checkpoints")[:20])
def test_any_damage(case, official, number):
    rng = drawn("checkpoints", number)
    folder = case.parent / "official"
    shutil.copytree(official, folder)
    path = folder / rng.choice(PARTS)
    path.write_bytes(damaged(rng, path.read_bytes()))
    done = check(case, "base", "import", str(folder), "--name", "mine")
    if done.code == 2:
        assert not (case / "bases" / "mine.json").exists()


@pytest.mark.parametrize(
    "content", [{3: torch.zeros(1)}, {"a": [torch.zeros(1)]}, [], torch.zeros(2), {"vae": None}, {"": torch.zeros(0)}]
)
def test_odd_dictionaries(case, official, content):
    folder = case.parent / "official"
    shutil.copytree(official, folder)
    torch.save(content, folder / PARTS[0])
    assert check(case, "base", "import", str(folder), "--name", "mine").code == 2


def test_a_text_encoder_that_lacks_layers_is_refused(case, official):
    """`transformers` would draw the missing weights at random, anew at every run."""
    from safetensors.torch import load_file, save_file

    folder = case.parent / "official"
    shutil.copytree(official, folder)
    path = folder / PARTS[2]
    state = load_file(path)
    lost = next(key for key in state if "SelfAttention.q" in key)
    save_file({k: v for k, v in state.items() if k != lost}, path, {"format": "pt"})
    done = check(case, "base", "import", str(folder), "--name", "mine")
    assert done.code == 2 and "lacks 1 weights" in done.err and lost in done.err


@pytest.mark.parametrize(
    "index", ["null", "[]", '{"weight_map": null}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x.pth"}}']
)
def test_indexes_that_are_none(case, official, index):
    folder = case.parent / "official"
    shutil.copytree(official, folder)
    (folder / PARTS[0]).unlink()
    (folder / "infinity_8b_weights").mkdir()
    (folder / "infinity_8b_weights" / "model.safetensors.index.json").write_text(index)
    assert check(case, "base", "import", str(folder), "--name", "mine").code == 2


@pytest.mark.parametrize(
    "record", ["{", "null", "[]", "{}", '{"transformer": 3}', '{"format": 9}', '{"format": "x"}', '{"schedule": []}']
)
def test_records_that_lack_parts(case, record):
    (case / "bases").mkdir()
    (case / "bases" / "mine.json").write_text(record)
    text = (case / "params.yaml").read_text()
    (case / "params.yaml").write_text(text.replace("base: embedded", "base: mine"))
    assert check(case, "stage", "stamp", may_write=True).code == 2
    check(case, "base", "list")
