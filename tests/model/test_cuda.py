"""What must hold on a GPU: on fake tensors of `cuda:0`, which a CUDA build of torch has anywhere, and on a real one."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from arbooth.data.bases import load_base
from arbooth.data.networks import load_autoencoder, load_text_encoder, load_transformer, quantizer_of
from arbooth.memory import Undrawn, autoencoder_of, features_of, network, painted, prior_of, prompt_of
from arbooth.method.fit import FitSettings, fit
from arbooth.method.prior import draw_prior
from arbooth.method.seeds import generator
from arbooth.model.autoencoder import to_uint8
from arbooth.model.sampling import Sampling, sample
from arbooth.model.transformer import Text
from arbooth.params import load_params
from arbooth.recipes import params_of
from tests.test_memory import FOUR_BLOCKS, recipe

faked = pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch knows no CUDA")
real = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
SHAPE = replace(FOUR_BLOCKS, schedule=FOUR_BLOCKS.schedule.first(4))


@pytest.fixture
def fake(monkeypatch):
    """Where there is a card, the pinned memory that copies to it go through can't be faked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@faked
@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("changes", [{}, {"micro_batch": 1, "rank": 8}])
def test_a_training_steps_losses_mix_no_devices_and_wait_for_none(changes):
    """A read of a value (.item, tolist) would stop a fake tensor. Backward passes can't be faked on CUDA."""
    net = network(SHAPE, "bfloat16", "cuda")
    run = Undrawn(
        net, SHAPE.quantizer, features_of(SHAPE), [prompt_of(SHAPE)], prior_of(SHAPE, recipe()), recipe(**changes)
    )
    for loss, row in run.losses(run.draw_batch(torch.Generator())):
        assert loss.device.type == row.device.type == "cuda"


@faked
@pytest.mark.usefixtures("fake")
def test_painting_mixes_no_devices_and_waits_for_none():
    net, decoder = network(SHAPE, "bfloat16", "cuda"), autoencoder_of(SHAPE, "decoder", "bfloat16", "cuda")
    codes = painted(SHAPE, net, Sampling((4.0, 4.0, 4.0, 1.0), 0.5, 900, 0.97, prompt_guidance=(1.0, 1.0, 0.0, 0.0)), 2)
    assert codes.device.type == "cuda" and to_uint8(decoder.decode(codes)).shape == (2, 96, 96, 3)


PARAMS = load_params("recipe", text=params_of("embedded"))


def embedded(device):
    base = load_base("embedded")
    return load_transformer(base, device), load_autoencoder(base, device), load_text_encoder(base), quantizer_of(base)


@real
def test_a_gpu_draws_the_cpus_bits_and_pictures():
    """Random numbers come from the CPU, so that what differs is rounding: bits that were near to a tie."""
    drawn = {}
    for device in ("cpu", "cuda"):
        net, autoencoder, encoder, quantizer = embedded(device)
        prompts = [encoder.encode(words).features.to(device) for words in ("a cat in the snow", "a red car at night")]
        draws = [generator(0, "test", index) for index in range(2)]
        made = sample(net, quantizer, Text.stack(prompts), Sampling(3.0, 0.5, 900, 0.97), draws)
        drawn[device] = made.bits.cpu(), to_uint8(autoencoder.decode(made.codes)).cpu().float()
    bits, pictures = zip(*drawn.values())
    assert (bits[0] == bits[1]).float().mean() > 0.99
    assert (pictures[0] - pictures[1]).abs().mean() < 4


@real
@pytest.mark.parametrize("changes", [{}, {"rank": 0, "micro_batch": 1}, {"last_scale_chance": 0.5, "drop_text": 0.5}])
def test_a_gpu_learns_what_the_cpu_learns(changes):
    settings = replace(FitSettings(**PARAMS.recipe), steps=6, **changes)
    losses = {}
    for device in ("cpu", "cuda"):
        net, autoencoder, encoder, quantizer = embedded(device)
        prior = draw_prior(net, quantizer, encoder.encode("a photo of dog").features, 4, Sampling(1.0, 0.5, 900, 0.97), 0)
        height, width = load_base("embedded").picture_size
        photos = torch.rand(3, 3, height, width, generator=generator(0, "photos")).to(device) * 2 - 1
        with torch.no_grad():
            features = autoencoder.encode(photos)
        prompts = [encoder.encode("a photo of <S*> dog")] * 3
        made = fit(net, quantizer, features, prompts, prior, settings)
        losses[device] = torch.tensor([row["loss"] for row in made.history])
    assert losses["cuda"].allclose(losses["cpu"], rtol=0.02)
