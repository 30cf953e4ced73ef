"""Muon and Adam as one optimizer."""

import copy
import math

import pytest
import torch
from torch import nn

from vaelab.schedules import Cosine
from vaelab.training import Muon


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 1, 4, 4, generator=generator)
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


def test_a_step_of_a_matrix_is_orthogonal_and_of_the_stated_size(network: nn.Module) -> None:
    before = network[2].weight.detach().clone()
    descend(network, Muon(network.parameters(), lr=0.01), 1)
    step = (network[2].weight - before) / (-0.01 * 0.2 * math.sqrt(8))
    assert ((torch.linalg.svdvals(step) > 0.6) & (torch.linalg.svdvals(step) < 1.3)).all()


def test_everything_else_moves_as_under_adam(network: nn.Module) -> None:
    """A first step of Adam is lr times the sign of the gradient."""
    conv = network[0]
    before = [p.detach().clone() for p in (conv.weight, conv.bias)]
    descend(network, Muon(network.parameters(), adam_lr=0.02), 1)
    for old, new in zip(before, (conv.weight, conv.bias), strict=True):
        torch.testing.assert_close((new - old).abs(), torch.full_like(old, 0.02), rtol=1e-3, atol=0)


def test_it_learns(network: nn.Module) -> None:
    x = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    before = network(x).square().mean().item()
    descend(network, Muon(network.parameters()), 100)
    assert network(x).square().mean().item() < before / 10


def test_its_state_goes_on_where_it_stopped(network: nn.Module) -> None:
    optimizer = Muon(network.parameters())
    descend(network, optimizer, 3)
    saved = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    descend(network, optimizer, 2)
    whole = [p.detach().clone() for p in network.parameters()]
    network.load_state_dict(saved[0])
    again = Muon(network.parameters())
    again.load_state_dict(saved[1])
    descend(network, again, 2)
    assert all(torch.equal(one, two) for one, two in zip(whole, network.parameters(), strict=True))


def test_a_schedule_moves_both_rates_after_loading_too(network: nn.Module) -> None:
    optimizer = Muon(network.parameters(), lr=0.4, adam_lr=0.2)
    optimizer.load_state_dict(optimizer.state_dict())
    schedule = Cosine(epochs=1, steps_per_epoch=4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step))
    descend(network, optimizer, 2)
    scheduler.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.1])
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == pytest.approx([0.2, 0.1])


def test_networks_without_matrices_or_without_anything_else() -> None:
    for shape in ((3,), (3, 2)):
        parameter = nn.Parameter(torch.ones(shape))
        optimizer = Muon([parameter])
        parameter.square().sum().backward()
        optimizer.step()
        assert (parameter < 1).all()


def test_refusals(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="takes no groups of parameters; choose optimizer=adam"):
        Muon([{"params": list(network.parameters())}])
    for name in ("lr", "momentum", "weight_decay", "adam_lr"):
        with pytest.raises(ValueError, match=f"^{name} must"):
            Muon([nn.Parameter(torch.ones(1))], **{name: -1.0})
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        Muon(network.parameters(), momentum=1.0)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"needs torch 2.9 or newer, but this is \d.*; choose optimizer=adam"):
        Muon(network.parameters())
