import pytest
import torch

from arbooth.method.layers import select_parameters
from arbooth.params import load_params
from tests.conftest import ROOT


def test_each_kind_takes_its_own_layers_of_every_block(tiny):
    own = select_parameters(tiny.net, ("cross_attention", "feed_forward"))
    assert all(".cross_attention." in n or ".feed_forward." in n for n in own)
    assert {n.split(".")[1] for n in own} == {"0", "1"}
    assert not any("norm" in n or "modulation" in n for n in own)
    keys = select_parameters(tiny.net, ("cross_attention.key_value",))
    assert keys == [f"blocks.{i}.cross_attention.{n}" for i in (0, 1) for n in ("value_bias", "key_value.weight")]


def test_a_selection_that_matches_nothing_is_an_error(tiny):
    with pytest.raises(ValueError, match="crossattention"):
        select_parameters(tiny.net, ("crossattention",))
    tiny.net.blocks = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="matches no parameter"):
        select_parameters(tiny.net, ("feed_forward",))


def test_every_preset_selects(tiny):
    for method in load_params(ROOT / "params.yaml").methods.values():
        assert bool(select_parameters(tiny.net, method.layers)) == bool(method.layers)
