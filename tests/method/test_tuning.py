"""What every kind of tuning promises: attach, list, save, apply, take off, merge."""

import pytest
import torch

from arbooth.errors import InputError
from arbooth.method.tuning import DOWN, KINDS, UP, check_finite, shrunk

RANK = 3


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def trained_values(kind, net):
    """Attach, and move what is trained a little."""
    trained = kind.attach(net, ("feed_forward",), RANK)
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
    trained = kind.attach(tiny.net, ("feed_forward",), RANK)
    assert trained and all(p.dtype == torch.float32 and p.requires_grad for p in trained.values())
    assert tiny.net.blocks[0].self_attention.output.weight.dtype == torch.bfloat16
    assert not tiny.net.head.weight.requires_grad
    with pytest.raises(ValueError, match="unknown layer"):
        kind.attach(tiny.net, ("feedforward",), RANK)


def test_saved_values_applied_to_another_copy_paint_the_same(kind, tiny):
    from tests.conftest import make_tiny

    saved = kind.saved(trained_values(kind, tiny.net), "float32")
    other = make_tiny()
    before = {name: value.clone() for name, value in other.net.state_dict().items()}
    kind.check(saved, other.net)
    with kind.applied(saved, other.net):
        applied = output(other)
    torch.testing.assert_close(applied, output(tiny), rtol=1e-4, atol=1e-5)  # a product added up in another order
    assert all(torch.equal(value, before[name]) for name, value in other.net.state_dict().items())
    kind.merge(saved, other.net)
    assert torch.equal(output(other), applied)


@pytest.mark.parametrize("put_on", [KINDS["full"].applied, KINDS["low-rank"].hung])  # the latter where no CPU is
def test_what_paints_as_it_was_trained_paints_the_same_to_the_bit(put_on, tiny):
    from tests.conftest import make_tiny

    kind, other = put_on.__self__, make_tiny()
    saved = kind.saved(trained_values(kind, tiny.net), "float32")
    before = output(other)
    with put_on(saved, other.net):
        assert torch.equal(output(other), output(tiny))
    assert torch.equal(output(other), before)


def test_the_network_is_back_after_an_error(kind, tiny):
    before = output(tiny)
    saved = {
        name: value + 1 for name, value in kind.saved(kind.attach(tiny.net, ("feed_forward",), RANK), "float32").items()
    }
    with pytest.raises(RuntimeError), kind.applied(saved, tiny.net):
        raise RuntimeError
    assert torch.equal(output(tiny), before)


def test_what_parameters_become_is_what_a_network_paints_with(kind, tiny):
    own = {name: value.detach().clone() for name, value in tiny.net.named_parameters()}
    before = output(tiny)
    trained = trained_values(kind, tiny.net)
    tuned = output(tiny)
    other = type(tiny.net)(tiny.net.config)
    other.load_state_dict({**own, **{n: b for n, b in tiny.net.named_buffers() if n in tiny.net.state_dict()}})
    with torch.no_grad():
        for name, value in kind.become(trained, own):
            assert name in own and not torch.equal(value, own[name])
            other.get_parameter(name).copy_(value)
    tiny.net = other
    torch.testing.assert_close(output(tiny), tuned, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(tuned, before, rtol=1e-2, atol=1e-2)


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


def test_low_rank_begins_where_the_base_is_and_is_small(tiny):
    before = output(tiny)
    trained = KINDS["low-rank"].attach(tiny.net, ("cross_attention", "feed_forward"), RANK)
    assert torch.equal(output(tiny), before)
    full = KINDS["full"].attach(tiny.net, ("cross_attention", "feed_forward"))
    assert sum(p.numel() for p in trained.values()) < 0.1 * sum(p.numel() for p in full.values())
    assert all(name in trained for name, value in full.items() if value.ndim == 1)


def test_draws_of_factors_depend_on_the_seed_and_the_name_alone(tiny):
    from tests.conftest import make_tiny

    one = KINDS["low-rank"].attach(tiny.net, ("feed_forward",), RANK, seed=5)
    both = KINDS["low-rank"].attach(make_tiny().net, ("cross_attention", "feed_forward"), RANK, seed=5)
    assert all(torch.equal(value, both[name]) for name, value in one.items())


@pytest.mark.parametrize("rank", [0, 10**6])
def test_a_rank_that_no_matrix_has_is_refused(tiny, rank):
    with pytest.raises(InputError, match=f"rank {rank} does not fit"):
        KINDS["low-rank"].attach(tiny.net, ("feed_forward",), rank)


def test_one_factor_without_the_other_is_refused(tiny):
    saved = KINDS["low-rank"].saved(trained_values(KINDS["low-rank"], tiny.net), "float32")
    name = next(name for name in saved if name.endswith(UP))
    with pytest.raises(ValueError, match="without the other"):
        KINDS["low-rank"].check({n: v for n, v in saved.items() if n != name}, tiny.net)


@pytest.mark.parametrize("name", ["no_text", "level.weight", "blocks.0.modulation", "nothing.weight"])
def test_factors_of_what_is_no_linear_layer_are_refused(tiny, name):
    rows = {"no_text": (512, 128)}.get(name, (15, 128))
    factors = {name + DOWN: torch.zeros(2, rows[1]), name + UP: torch.zeros(rows[0], 2)}
    with pytest.raises(ValueError, match="this base lacks"):
        KINDS["low-rank"].check(factors, tiny.net)


def test_a_change_of_low_rank_is_shrunk_without_loss_and_any_other_as_well_as_can_be(tiny):
    name = "blocks.0.feed_forward.expand.weight"
    weight = tiny.net.get_parameter(name).detach()
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(len(weight), 3, generator=generator), torch.randn(3, weight.shape[1], generator=generator)
    lost: dict[str, float] = {}
    found = shrunk({name: weight + left @ right}, tiny.net, 3, lost.__setitem__)
    torch.testing.assert_close(found[name + UP] @ found[name + DOWN], left @ right, rtol=1e-3, atol=1e-3)
    assert lost[name] < 1e-4
    found = shrunk({name: weight + left @ right}, tiny.net, 2, lost.__setitem__)
    rest = torch.linalg.svdvals(left @ right)[2:].norm() / (left @ right).norm()
    assert lost[name] == pytest.approx(float(rest), rel=1e-3)
    assert float(
        (found[name + UP] @ found[name + DOWN] - left @ right).norm() / (left @ right).norm()
    ) == pytest.approx(float(rest), rel=1e-3)
