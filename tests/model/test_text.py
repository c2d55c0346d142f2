import pytest
import torch

from arbooth.data.bases import load_base
from arbooth.data.networks import load_text_encoder
from arbooth.model.identifier import IDENTIFIER
from arbooth.model.text import Prompt, TextEncoder


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder(load_base("embedded"))


def test_learned_rows_take_the_identifiers_place():
    prompt = Prompt(torch.arange(8.0).view(4, 2), (2,))
    rows = torch.full((3, 2), -1.0)
    assert prompt.with_subject(rows)[:, 0].tolist() == [0, 2, -1, -1, -1, 6]
    assert torch.equal(prompt.with_subject(None), prompt.features)
    twice = Prompt(prompt.features, (0, 2)).with_subject(rows[:1])
    assert twice[:, 0].tolist() == [-1, 2, -1, 6]


def test_gradients_reach_the_learned_rows():
    rows = torch.zeros(2, 2, requires_grad=True)
    Prompt(torch.ones(3, 2), (1,)).with_subject(rows).sum().backward()
    assert rows.grad.eq(1).all()


@pytest.mark.parametrize("prompt", ["a photo of <S*> dog", "a photo of <S*>dog", "a photo of <S*>, dog"])
def test_the_identifier_is_one_token_whatever_stands_around_it(encoder, prompt):
    assert len(encoder.encode(prompt).identifier_rows) == 1


def test_the_identifier_is_the_first_unused_row(encoder):
    assert encoder.identifier == len(encoder.tokenizer) - 1 < encoder.model.config.vocab_size


def test_an_encoder_without_a_free_row_is_refused(encoder):
    from pretrain.words import build_encoder, build_tokenizer

    tokenizer = build_tokenizer()
    full = build_encoder(tokenizer, 64, 1)
    full.config.vocab_size = len(tokenizer)
    with pytest.raises(ValueError, match=f"none is left for {IDENTIFIER}".replace("*", r"\*")):
        TextEncoder(full, tokenizer)


def test_features_depend_on_the_prompt_alone(encoder):
    first = encoder.encode("a dog in the snow").features
    encoder.encode("a cat")
    assert torch.equal(first, encoder.encode("a dog in the snow").features)
    assert first.shape == (6, encoder.width)  # five words and the end
    assert encoder.encode("A Dog  in the SNOW").features.equal(first)


def test_an_empty_prompt_is_refused(encoder):
    with pytest.raises(ValueError, match="at least one word"):
        encoder.encode("  ")
