"""The training frame: runs that resume to the same bytes."""

import pytest
import torch
from torch import nn

from pretrain import checkpoint
from pretrain.optimize import optimizers, run


def problem():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    wanted = torch.randn(3, 6)

    def loss_at(step):
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
        return (net(x) - x @ wanted.T).pow(2).mean()

    return net, optimizers(net, 2e-3, lambda name, p: p.ndim == 2 and name.startswith("0")), loss_at


def trained(path, *stops):
    for steps in stops:
        net, steppers, loss_at = problem()
        run(net, steppers, loss_at, path, steps=steps, decay=10, batch=32, save_every=7, average=0.9)
    return net.state_dict(), checkpoint.load(path)


def test_a_run_learns(tmp_path):
    net, _, loss_at = problem()
    before = loss_at(99).item()
    net.load_state_dict(trained(tmp_path / "a.pt", 150)[0])
    assert loss_at(99).item() < 0.5 * before


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch):
    whole, state = trained(tmp_path / "a.pt", 40)
    assert state["step"] == 40

    class Killed(Exception):
        pass

    net, steppers, loss_at = problem()

    def dies(step):
        if step == 25:
            raise Killed
        return loss_at(step)

    with pytest.raises(Killed):
        run(net, steppers, dies, tmp_path / "b.pt", steps=40, decay=10, batch=32, save_every=7, average=0.9)
    assert checkpoint.load(tmp_path / "b.pt")["step"] == 21
    resumed, _ = trained(tmp_path / "b.pt", 40)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_steps_may_grow(tmp_path):
    trained(tmp_path / "a.pt", 20, 60)
    assert checkpoint.load(tmp_path / "a.pt")["step"] == 60
