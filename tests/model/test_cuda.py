"""What must hold on a GPU, found without one: fake tensors on `cuda:0`, which a CUDA build of torch has anywhere."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from arbooth.memory import Undrawn, autoencoder_of, features_of, network, painted, prior_of, prompt_of
from arbooth.model.autoencoder import to_uint8
from tests.test_memory import FOUR_BLOCKS, recipe

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch knows no CUDA")
SHAPE = replace(FOUR_BLOCKS, schedule=FOUR_BLOCKS.schedule.first(4))


@pytest.fixture(autouse=True)
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.parametrize("changes", [{}, {"micro_batch": 1, "rank": 8}])
def test_a_training_steps_losses_mix_no_devices_and_wait_for_none(changes):
    """A read of a value (.item, tolist) would stop a fake tensor. Backward passes can't be faked on CUDA."""
    net = network(SHAPE, "bfloat16", "cuda")
    run = Undrawn(
        net, SHAPE.quantizer, features_of(SHAPE), prompt_of(SHAPE), prior_of(SHAPE, recipe()), recipe(**changes)
    )
    for loss, row in run.losses(run.draw_batch(torch.Generator())):
        assert loss.device.type == row.device.type == "cuda"


def test_painting_mixes_no_devices_and_waits_for_none():
    net, decoder = network(SHAPE, "bfloat16", "cuda"), autoencoder_of(SHAPE, "decoder", "bfloat16", "cuda")
    codes = painted(SHAPE, net, (4.0, 4.0, 4.0, 1.0), 2)
    assert codes.device.type == "cuda" and to_uint8(decoder.decode(codes)).shape == (2, 96, 96, 3)
