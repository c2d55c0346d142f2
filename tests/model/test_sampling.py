import pytest
import torch

from arbooth.method.seeds import generator
from arbooth.model.sampling import Sampling, draw_bits, sample, spread_over_scales
from arbooth.model.transformer import Text

DEFAULTS = {"guidance": 4.0, "temperature": 0.5, "top_k": 900, "top_p": 0.97}


def painted(tiny, sampling, seeds, text=None):
    return sample(
        tiny.net,
        tiny.quantizer,
        text or Text.stack([tiny.text] * len(seeds)),
        sampling,
        [generator(s) for s in seeds],
        keep_logits=True,
    )


def rows_asked(tiny):
    """How many rows the network is asked for, scale by scale, from now on."""
    asked, step = [], tiny.net.step

    def counted(x, condition, *rest, **named):
        asked.append(len(condition.start))
        return step(x, condition, *rest, **named)

    tiny.net.step = counted
    return asked


def test_cached_sampling_agrees_with_teacher_forcing(tiny):
    drawn = painted(tiny, Sampling(1.0, 1.0, 900, 0.97), [0, 1])
    inputs, codes = tiny.quantizer.inputs_from_bits(drawn.bits)
    logits = tiny.net(Text.stack([tiny.text] * 2), inputs, tiny.quantizer.schedule)
    assert torch.allclose(drawn.logits, logits, atol=1e-4)
    assert torch.allclose(drawn.codes, codes, atol=1e-6)


def test_guidance_mixes_with_and_without_text(tiny):
    drawn = painted(tiny, Sampling(3.0, 1.0, 900, 0.97), [0])
    inputs, _ = tiny.quantizer.inputs_from_bits(drawn.bits)
    text = Text.stack([tiny.text])
    with_text = tiny.net(text, inputs, tiny.quantizer.schedule)
    without = tiny.net(tiny.net.unconditional(text), inputs, tiny.quantizer.schedule)
    assert torch.allclose(drawn.logits, 3 * with_text - 2 * without, atol=1e-3)


def test_a_seed_repeats_and_another_does_not(tiny):
    first, second, third = (painted(tiny, Sampling(2.0, 1.0, 900, 0.97), [s]).bits for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_greedy_needs_no_generator(tiny):
    drawn = sample(tiny.net, tiny.quantizer, Text.stack([tiny.text]), Sampling(**{**DEFAULTS, "top_k": 1}))
    again = sample(tiny.net, tiny.quantizer, Text.stack([tiny.text]), Sampling(**{**DEFAULTS, "top_k": 1}))
    assert torch.equal(drawn.bits, again.bits)
    with pytest.raises(ValueError, match="generator"):
        sample(tiny.net, tiny.quantizer, Text.stack([tiny.text]), Sampling(**DEFAULTS))


def test_top_p_drops_the_weaker_outcome():
    margin = torch.full((1, 2000, 1), 2.0)  # the stronger outcome has 0.88
    kept = draw_bits(margin, Sampling(**{**DEFAULTS, "top_p": 0.97}), [generator(0)])
    dropped = draw_bits(margin, Sampling(**{**DEFAULTS, "top_p": 0.8}), [generator(0)])
    assert kept.float().mean() == pytest.approx(0.88, abs=0.03)
    assert dropped.all()


def test_numbers_spread_over_scales_must_fit(tiny):
    assert spread_over_scales((1, 2, 3), 3, "guidance") == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="2 values for 3 scales"):
        painted(tiny, Sampling(**{**DEFAULTS, "guidance": (1.0, 2.0)}), [0])
    with pytest.raises(ValueError, match="prompt_guidance has 2 values"):
        painted(tiny, Sampling(**DEFAULTS, prompt_guidance=(1.0, 2.0)), [0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_share": 0.0},
        {"token_share": (1.0, 2.0)},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"temperature": 0.0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError):
        Sampling(**{**DEFAULTS, **wrong})


def test_the_half_without_text_is_asked_as_long_as_it_counts(tiny):
    """Guidance of 1 on the last scales: the same bits as when both halves go on to the end."""
    scales = len(tiny.quantizer.schedule)
    asked = rows_asked(tiny)
    drawn = painted(tiny, Sampling((3.0,) * (scales - 1) + (1.0,), 1.0, 900, 0.97), [0])
    assert asked == [2] * (scales - 1) + [1]
    nearly = painted(tiny, Sampling((3.0,) * (scales - 1) + (1.0 + 1e-7,), 1.0, 900, 0.97), [0])
    assert torch.equal(drawn.bits, nearly.bits)
    assert torch.allclose(drawn.logits, nearly.logits, atol=1e-4)


def greedy(tiny, text, **named):
    given = {"guidance": 1.0, **named.pop("sampling", {})}
    return sample(tiny.net, tiny.quantizer, Text.stack([text]), Sampling(temperature=1.0, top_k=1, top_p=1.0, **given),
                  keep_logits=True, **named)  # fmt: skip


def test_prompt_guidance_adds_what_the_prompt_says_beyond_its_class(tiny):
    """On the first scale, where nothing has been drawn: the sum of four passes."""
    prompt, plain, kind = tiny.text, tiny.other, torch.randn(6, 128, generator=torch.Generator().manual_seed(1))
    first = slice(*tiny.quantizer.schedule.spans[0])
    nothing = greedy(tiny, tiny.net.no_text[: len(prompt)]).logits[:, first]
    parts = [greedy(tiny, text).logits[:, first] for text in (prompt, plain, kind)]
    drawn = greedy(tiny, prompt, plain=Text.stack([plain, kind]), sampling={"guidance": 3.0, "prompt_guidance": 2.0})
    expected = 3.0 * parts[0] - 2.0 * nothing + 2.0 * (parts[1] - parts[2])
    assert torch.allclose(drawn.logits[:, first], expected, atol=1e-4)


def test_prompt_guidance_of_nothing_asks_nothing_more(tiny):
    scales = len(tiny.quantizer.schedule)
    beside = Text.stack([tiny.other, tiny.other[:3]])
    off = greedy(tiny, tiny.text, sampling={"guidance": 3.0})
    assert torch.equal(greedy(tiny, tiny.text, plain=beside, sampling={"guidance": 3.0}).logits, off.logits)
    asked = rows_asked(tiny)
    toward = (1.0,) + (0.0,) * (scales - 1)
    greedy(tiny, tiny.text, plain=beside, sampling={"guidance": 3.0, "prompt_guidance": toward})
    assert asked == [4] + [2] * (scales - 1)
    same = Text.stack([tiny.text, tiny.text])  # a prompt that stands for both is not moved
    moved = greedy(tiny, tiny.text, plain=same, sampling={"guidance": 3.0, "prompt_guidance": 5.0})
    assert torch.allclose(moved.logits, off.logits, atol=1e-3)


def test_pictures_of_one_pass_are_those_of_many_but_for_rounding(tiny):
    texts = [tiny.text, tiny.other]
    both = painted(tiny, Sampling(3.0, 1.0, 900, 0.97), [0, 1], Text.stack(texts))
    for k, text in enumerate(texts):
        alone = painted(tiny, Sampling(3.0, 1.0, 900, 0.97), [k], Text.stack([text]))
        assert torch.allclose(both.logits[k], alone.logits[0], atol=1e-3)
        assert torch.equal(both.bits[k], alone.bits[0])


def test_fewer_tokens_leave_the_coarser_scales_and_all_of_them_change_nothing(tiny):
    scales = len(tiny.quantizer.schedule)
    start, _ = tiny.quantizer.schedule.spans[-1]
    whole, every, half = (
        painted(tiny, Sampling(3.0, 1.0, 900, 0.97, (1.0,) * (scales - 1) + (share,)), [0])
        for share in (1.0, 1 - 1e-9, 0.5)
    )
    assert torch.equal(whole.bits, every.bits) and torch.allclose(whole.logits, every.logits, atol=1e-5)
    assert torch.equal(whole.bits[:, :start], half.bits[:, :start])
    single = painted(tiny, Sampling(3.0, 1.0, 900, 0.97, 0.5), [0])  # one number is for all scales
    assert not torch.allclose(whole.logits, single.logits)
    assert half.bits.shape == whole.bits.shape and not torch.allclose(whole.logits, half.logits)


def test_the_tokens_that_differ_most_are_computed(tiny):
    from arbooth.model.transformer import _pivotal

    x = torch.zeros(1, 6, 4)
    x[0, 1], x[0, 4] = 5.0, -3.0
    assert _pivotal(x, 0.33).tolist() == [[1, 4]]
