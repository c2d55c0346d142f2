"""What every kind of tuning promises: attach, list, save, apply, take off, merge."""

import pytest
import torch

from arbooth.method.tuning import KINDS, check_finite


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def trained_values(kind, net):
    """Attach, and move what is trained a little."""
    trained = kind.attach(net, ("feed_forward",))
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.01)
    return {name: parameter.detach().clone() for name, parameter in trained.items()}


def output(tiny):
    from arbooth.model.transformer import Text

    inputs = torch.ones(1, tiny.quantizer.schedule.length - 1, tiny.quantizer.token_bits)
    with torch.no_grad():
        return tiny.net(Text.stack([tiny.text]), inputs, tiny.quantizer.schedule)


def test_attach_lists_float32_masters_and_freezes_the_rest(kind, tiny):
    tiny.net.to(torch.bfloat16)
    trained = kind.attach(tiny.net, ("feed_forward",))
    assert trained and all(p.dtype == torch.float32 and p.requires_grad for p in trained.values())
    assert tiny.net.blocks[0].self_attention.output.weight.dtype == torch.bfloat16
    assert not tiny.net.head.weight.requires_grad
    with pytest.raises(ValueError, match="unknown layer"):
        kind.attach(tiny.net, ("feedforward",))


def test_saved_values_applied_to_another_copy_paint_the_same(kind, tiny):
    from tests.conftest import make_tiny

    saved = kind.saved(trained_values(kind, tiny.net), "float32")
    other = make_tiny()
    before = {name: value.clone() for name, value in other.net.state_dict().items()}
    kind.check(saved, other.net)
    with kind.applied(saved, other.net):
        assert torch.equal(output(other), output(tiny))
    assert all(torch.equal(value, before[name]) for name, value in other.net.state_dict().items())
    kind.merge(saved, other.net)
    assert torch.equal(output(other), output(tiny))


def test_the_network_is_back_after_an_error(kind, tiny):
    before = output(tiny)
    saved = {name: value + 1 for name, value in kind.saved(kind.attach(tiny.net, ("feed_forward",)), "float32").items()}
    with pytest.raises(RuntimeError), kind.applied(saved, tiny.net):
        raise RuntimeError
    assert torch.equal(output(tiny), before)


def test_what_does_not_fit_or_is_not_finite_is_not_merged(kind, tiny):
    saved = kind.saved(trained_values(kind, tiny.net), "float32")
    name = next(iter(saved))
    with pytest.raises(ValueError, match="this base lacks"):
        kind.merge({**saved, name: torch.zeros(1)}, tiny.net)
    with pytest.raises(ValueError, match="not finite"):
        kind.merge({**saved, name: saved[name] * torch.nan}, tiny.net)
    check_finite(saved)


def test_saved_values_have_the_type_they_are_used_in(kind, tiny):
    saved = kind.saved(trained_values(kind, tiny.net), "bfloat16")
    assert {value.dtype for value in saved.values() if value.ndim == 2} == {torch.bfloat16}
