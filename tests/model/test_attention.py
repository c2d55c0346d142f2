import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from arbooth.model.attention import block_causal_attention, text_mask
from arbooth.model.schedule import Schedule

SCHEDULE = Schedule.custom([[1, 1], [2, 2], [3, 3]])


def masked(q, k, v):
    scale = torch.tensor([0] + [1] * 4 + [2] * 9)
    return scaled_dot_product_attention(q, k, v, attn_mask=scale[:, None] >= scale[None], scale=1.0)


@pytest.mark.parametrize("backend", ["scales", "flex"])
def test_both_backends_equal_a_masked_reference(backend):
    q, k, v = torch.randn(3, 2, 2, 14, 16)
    assert torch.allclose(block_causal_attention(q, k, v, SCHEDULE, backend), masked(q, k, v), atol=1e-5)


def test_gradients_equal_those_of_the_masked_reference():
    q, k, v = (torch.randn(1, 2, 14, 16, dtype=torch.float64, requires_grad=True) for _ in range(3))
    weights = torch.randn(1, 2, 14, 16, dtype=torch.float64)
    own = torch.autograd.grad((block_causal_attention(q, k, v, SCHEDULE) * weights).sum(), (q, k, v))
    reference = torch.autograd.grad((masked(q, k, v) * weights).sum(), (q, k, v))
    for a, b in zip(own, reference):
        assert torch.allclose(a, b)


def test_wrong_length_and_unknown_backend_are_refused():
    q = torch.randn(1, 1, 13, 8)
    with pytest.raises(ValueError, match="13 tokens"):
        block_causal_attention(q, q, q, SCHEDULE)
    q = torch.randn(1, 1, 14, 8)
    with pytest.raises(ValueError, match="unknown"):
        block_causal_attention(q, q, q, SCHEDULE, "magic")


def test_text_mask_is_none_without_padding():
    assert text_mask([3, 3]) is None
    assert text_mask([1, 3])[:, 0, 0].tolist() == [[True, False, False], [True, True, True]]
