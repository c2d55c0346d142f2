import pytest
import torch

from arbooth.model import names
from arbooth.model.autoencoder import Autoencoder, to_uint8
from arbooth.model.config import AutoencoderConfig


def test_stride_and_shapes():
    net = Autoencoder(AutoencoderConfig(8, 32, (1, 1, 2), 1)).eval()
    assert net.config.stride == 4
    with torch.inference_mode():
        features = net.encode(torch.rand(2, 3, 16, 24) * 2 - 1)
        pixels = net.decode(features)
    assert features.shape == (2, 8, 4, 6)
    assert pixels.shape == (2, 3, 16, 24)
    assert pixels.abs().max() <= 1


def test_sides_that_are_no_multiple_of_the_stride_are_refused():
    net = Autoencoder(AutoencoderConfig(8, 32, (1, 1, 2), 1))
    with pytest.raises(ValueError, match="stride 4"):
        net.encode(torch.zeros(1, 3, 15, 16))


def test_channels_must_divide_into_groups():
    with pytest.raises(ValueError, match="groups"):
        Autoencoder(AutoencoderConfig(8, 20, (1, 1), 1))


@pytest.mark.parametrize(
    "config, count",
    [(AutoencoderConfig(32), 32), (AutoencoderConfig(14, multipliers=(1, 2, 4, 4)), 14), (AutoencoderConfig(16), 16)],
)
def test_official_tokenizers_on_the_meta_device(config, count):
    with torch.device("meta"):
        net = Autoencoder(config)
    own = net.state_dict()
    public = names.public_autoencoder_names(list(own))
    assert len(public) == len(own)
    assert tuple(own[public["encoder.conv_out.conv.weight"]].shape) == (count, 512, 3, 3)
    assert tuple(own[public["decoder.up.1.block.0.nin_shortcut.conv.weight"]].shape)[:2] == (256, 512)
    assert "encoder.down.0.downsample.conv.conv.weight" in public
    assert "decoder.up.1.upsample.conv.conv.bias" in public
    assert "encoder.mid.block_2.norm1.norm.weight" in public


def test_bytes_are_truncated():
    assert to_uint8(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 127, 255]
