import pytest
import torch

from arbooth.data.adapters import Adapter, applied, check_fits, read_adapter, write_adapter
from arbooth.errors import InputError


@pytest.fixture
def adapter(tiny):
    parameters = {n: p.detach() + 1 for n, p in tiny.net.named_parameters() if ".feed_forward." in n}
    return Adapter(torch.randn(4, 128), parameters, "hash", "poodle", "dog", {"steps": 3})


def test_an_adapter_survives_the_disk(tmp_path, adapter):
    write_adapter(tmp_path / "a.safetensors", adapter)
    again = read_adapter(tmp_path / "a.safetensors")
    assert (again.base, again.subject, again.noun, again.settings) == ("hash", "poodle", "dog", {"steps": 3})
    assert torch.equal(again.identifier, adapter.identifier)
    assert set(again.parameters) == set(adapter.parameters)


def test_it_is_put_on_and_taken_off_bit_for_bit(tiny, adapter):
    before = {n: p.detach().clone() for n, p in tiny.net.named_parameters()}
    with applied(adapter, tiny.net):
        assert torch.equal(
            tiny.net.get_parameter("blocks.0.feed_forward.expand.weight"),
            before["blocks.0.feed_forward.expand.weight"] + 1,
        )
    assert all(torch.equal(p, before[n]) for n, p in tiny.net.named_parameters())


def test_it_comes_off_after_an_error_too(tiny, adapter):
    before = tiny.net.blocks[0].feed_forward.expand.weight.clone()
    with pytest.raises(RuntimeError), applied(adapter, tiny.net):
        raise RuntimeError
    assert torch.equal(tiny.net.blocks[0].feed_forward.expand.weight, before)


def test_misfits_are_refused(tiny, adapter):
    with pytest.raises(InputError, match="belongs to base hash"):
        check_fits(adapter, tiny.net, "another")
    adapter.parameters["blocks.9.feed_forward.expand.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"blocks\.9"):
        check_fits(adapter, tiny.net, "hash")
    del adapter.parameters["blocks.9.feed_forward.expand.weight"]
    adapter.identifier[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite in identifier"):
        check_fits(adapter, tiny.net, "hash")


def test_other_safetensors_are_not_adapters(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="not an adapter"):
        read_adapter(tmp_path / "x.safetensors")
