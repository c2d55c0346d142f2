import torch

from arbooth.method.prior import draw_prior
from arbooth.model.sampling import Sampling
from arbooth.model.transformer import Text

SAMPLING = Sampling(1.0, 0.5, 900, 0.97)


def test_margins_are_the_teachers_own_at_temperature_one(tiny):
    prior = draw_prior(tiny.net, tiny.quantizer, tiny.text, 3, SAMPLING, seed=1, keep_pairs=True)
    inputs, _ = tiny.quantizer.inputs_from_bits(prior.bits)
    logits = tiny.net(Text.stack([tiny.text] * 3), inputs, tiny.quantizer.schedule)
    assert prior.margins.dtype == torch.float16
    assert torch.allclose(prior.margins.float(), logits[..., 1] - logits[..., 0], atol=2e-2)
    assert torch.allclose(prior.zeros.float(), logits[..., 0], atol=2e-2)


def test_samples_do_not_depend_on_how_many_are_drawn(tiny):
    few = draw_prior(tiny.net, tiny.quantizer, tiny.text, 2, SAMPLING, seed=1)
    many = draw_prior(tiny.net, tiny.quantizer, tiny.text, 4, SAMPLING, seed=1)
    assert torch.equal(few.bits, many.bits[:2])
    assert not torch.equal(many.bits[0], many.bits[1])
    assert few.zeros is None
