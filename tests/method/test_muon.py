import pytest
import torch
from torch import nn

from arbooth.method.muon import RMS, TOGETHER, Muon, orthogonal


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonal_brings_singular_values_near_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-4, 1e4])[:, None, None]
    made = orthogonal(matrices)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.3
    assert torch.linalg.svdvals(matrices[0]).max() > 2
    assert torch.allclose(made[1:2], orthogonal(matrices[1:2]), atol=1e-2)  # each on its own


def test_muon_steps_by_an_orthogonal_matrix_whatever_the_size_of_the_gradient():
    weight = nn.Parameter(torch.zeros(8, 4, 3, 3))
    stepper = Muon([weight], lr=0.1, weight_decay=0)
    weight.grad = 1e-4 * torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    stepper.step()
    values = torch.linalg.svdvals(weight.detach().flatten(1))
    assert values.min() > 0.05 and values.max() < 0.13


def stepped(shape, **settings):
    """What one step moves a matrix by."""
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = 1e3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.1, weight_decay=0, **settings).step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (64, 256)])
def test_like_adamw_matrices_of_any_shape_move_by_the_same_root_mean_square(shape):
    assert stepped(shape, like_adamw=True).pow(2).mean().sqrt() == pytest.approx(0.1 * RMS, rel=0.15)


def test_matrices_that_are_iterated_on_together_move_as_alone(monkeypatch):
    def moved():
        weights = [nn.Parameter(torch.zeros(24, 8)) for _ in range(5)]
        for number, weight in enumerate(weights):
            weight.grad = torch.randn(24, 8, generator=torch.Generator().manual_seed(number))
        Muon(weights, lr=0.1).step()
        return torch.stack([weight.detach() for weight in weights])

    alone = moved()
    monkeypatch.setitem(TOGETHER, "cpu", 24 * 8 * 2)
    assert torch.allclose(moved(), alone, atol=2e-3) and alone.abs().min(-1).values.max() > 0
