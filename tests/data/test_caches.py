import pytest
import torch

from arbooth.data import caches, priors, tensors
from arbooth.errors import InputError
from arbooth.method.prior import ClassPrior
from arbooth.model.quantizer import Quantizer
from arbooth.model.schedule import Schedule
from arbooth.model.text import Prompt

SMALL = Quantizer(Schedule.custom([[1, 1], [2, 2], [4, 4]]), 8)
EMBEDDED = Quantizer(Schedule.custom([[1, 1], [2, 2], [3, 3], [5, 5], [8, 8]]), 32)


def test_a_prior_survives_the_disk_and_takes_little_room(tmp_path):
    prior = ClassPrior(
        torch.rand(4, 21, 8) > 0.5, torch.randn(4, 21, 8).half(), torch.randn(4, 21, 8).half(), torch.randn(5, 16)
    )
    priors.write_prior(tmp_path / "p.safetensors", prior, {"base": "x"})
    again = priors.read_prior(tmp_path / "p.safetensors", {"base": "x"}, SMALL)
    for name in ("bits", "margins", "zeros", "features"):
        assert torch.equal(getattr(prior, name), getattr(again, name)), name
    lean = ClassPrior(torch.rand(64, 103, 32) > 0.5, torch.randn(64, 103, 32).half(), None, torch.randn(5, 16))
    priors.write_prior(tmp_path / "q.safetensors", lean, {})
    # L*d half-precision numbers a sample, and a bit for each of them.
    assert (tmp_path / "q.safetensors").stat().st_size < 64 * 103 * 32 * 2.2 + 2000
    assert priors.read_prior(tmp_path / "q.safetensors", {}, EMBEDDED).zeros is None


def test_subject_tokens_survive_the_disk(tmp_path):
    prompts = [Prompt(torch.randn(6, 16), (3,)), Prompt(torch.randn(9, 16), (0, 4))]
    tokens = caches.SubjectTokens(torch.randn(3, 8, 4, 4), torch.randn(3, 8, 4, 4), prompts, [0, 1, 0])
    caches.write_subject(tmp_path / "t.safetensors", tokens, {"base": "x"})
    again = caches.read_subject(tmp_path / "t.safetensors", {"base": "x"}, SMALL)
    assert torch.equal(again.features, tokens.features)
    assert [prompt.identifier_rows for prompt in again.prompt_of_each()] == [(3,), (0, 4), (3,)]
    assert torch.equal(again.prompts[1].features, prompts[1].features)
    caches.write_subject(tmp_path / "t.safetensors", caches.SubjectTokens(tokens.features, tokens.validation, prompts, [0, 2, 0]), {})
    with pytest.raises(InputError, match="does not have a prompt for each photo"):
        caches.read_subject(tmp_path / "t.safetensors", {}, SMALL)


def test_a_stale_cache_is_refused_and_says_why(tmp_path, tiny):
    header = tensors.origin("hash", tiny.quantizer, prompt="a photo of cat")
    tensors.write_tensors(tmp_path / "t.safetensors", {"x": torch.zeros(1)}, header)
    assert tensors.read_tensors(tmp_path / "t.safetensors", header)["x"].item() == 0
    with pytest.raises(InputError, match="stale: it was made with another base and prompt"):
        tensors.read_tensors(tmp_path / "t.safetensors", tensors.origin("other", tiny.quantizer, prompt="a dog"))


def test_missing_and_broken_files_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="not there: run `dvc repro`"):
        tensors.open_tensors(tmp_path / "no.safetensors")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        tensors.open_tensors(tmp_path / "half.safetensors")
