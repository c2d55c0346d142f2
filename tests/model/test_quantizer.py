import pytest
import torch

from arbooth.model.quantizer import Quantizer, SelfCorrection
from arbooth.model.schedule import Schedule
from tests.conftest import make_tiny


@pytest.mark.parametrize("patchify", [False, True])
def test_bits_rebuild_what_the_transformer_reads(patchify):
    tiny = make_tiny(patchify)
    tokens = tiny.quantizer.encode(tiny.features)
    inputs, canvas = tiny.quantizer.inputs_from_bits(tokens.bits)
    assert torch.equal(inputs, tokens.inputs)
    assert canvas.shape == tiny.features.shape


def test_finer_scales_bring_the_sum_closer():
    torch.manual_seed(0)
    quantizer = Quantizer(Schedule.custom([[1, 1], [2, 2], [4, 4], [8, 8]]), 16)
    features = torch.nn.functional.interpolate(torch.randn(4, 16, 2, 2) * 0.3, size=(8, 8), mode="bilinear")
    bits = quantizer.encode(features).bits
    errors = []
    for end in (1, 5, 21, 85):
        canvas = torch.zeros_like(features)
        for scale, (start, stop) in enumerate(quantizer.schedule.spans):
            if stop <= end:
                canvas = quantizer.add(canvas, quantizer.code(quantizer.to_map(bits[:, start:stop], scale)))
        errors.append(float((features - canvas).square().mean()))
    assert max(errors[1:]) < errors[0] / 2


def test_flips_change_inputs_but_the_first_targets_stay(tiny):
    plain = tiny.quantizer.encode(tiny.features)
    flips = torch.zeros_like(plain.bits)
    flips[:, 0] = True
    flipped = tiny.quantizer.encode(tiny.features, flips_BLP=flips)
    assert torch.equal(plain.bits[:, :1], flipped.bits[:, :1])
    assert not torch.allclose(plain.inputs, flipped.inputs)


def test_drawn_flips_repeat_with_their_generator_and_respect_the_scales(tiny):
    draw = lambda seed: tiny.quantizer.draw_flips(  # noqa: E731
        400, SelfCorrection(0.3, 2), torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not draw(1)[:, 5:].any()
    assert draw(1)[:, :5].float().mean() == pytest.approx(0.15, abs=0.02)


def test_features_of_another_size_are_refused(tiny):
    with pytest.raises(ValueError, match="do not fit"):
        tiny.quantizer.encode(torch.randn(1, 8, 5, 5))


def test_a_schedule_of_one_map_has_no_inputs():
    quantizer = Quantizer(Schedule.custom([[1, 1]]), 8)
    tokens = quantizer.encode(torch.randn(2, 8, 1, 1))
    assert tokens.inputs.shape == (2, 0, 8)
    assert quantizer.inputs_from_bits(tokens.bits)[0].shape == (2, 0, 8)
