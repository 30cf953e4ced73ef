"""One optimizer, two players: each moves as if it had its own."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_models import small_vae

from vaelab.networks import MLPDiscriminator
from vaelab.objectives import AAE
from vaelab.training import AdversarialModule

ADAM = partial(torch.optim.Adam, lr=1e-2, eps=1e-4)


def a_module(optimizer=ADAM, **options) -> AdversarialModule:
    model = small_vae(x_shape=(1, 2, 3), latent_dim=2).train()
    discriminator = MLPDiscriminator(in_shape=(2,), hidden=[8])
    objective = AAE(discriminator=discriminator, discriminator_optimizer=options)
    return AdversarialModule(model=model, objective=objective, optimizer=optimizer)


def test_the_groups_hold_every_parameter_once_and_each_its_own_options():
    module = a_module(lr=3e-4, betas=[0.5, 0.9])
    model, discriminator = module.configure_optimizers().param_groups
    assert (model["lr"], tuple(model["betas"]), model["eps"]) == (1e-2, (0.9, 0.999), 1e-4)
    assert (discriminator["lr"], tuple(discriminator["betas"]), discriminator["eps"]) == (3e-4, (0.5, 0.9), 1e-4)
    assert {id(p) for p in model["params"]} == {id(p) for p in module.model.parameters()}
    assert [id(p) for p in discriminator["params"]] == [id(p) for p in module.objective.discriminator.parameters()]


def test_steps_are_those_of_two_optimizers_that_know_nothing_of_each_other():
    module, other = a_module(lr=3e-3, betas=[0.5, 0.9]), a_module()
    optimizer = module.configure_optimizers()
    of_model = torch.optim.Adam(other.model.parameters(), lr=1e-2, eps=1e-4)
    of_discriminator = torch.optim.Adam(other.objective.discriminator.parameters(), 3e-3, (0.5, 0.9), eps=1e-4)
    for step in range(3):
        torch.manual_seed(step)
        x, y = torch.rand(8, 1, 2, 3), torch.zeros(8)
        optimizer.zero_grad()
        module.training_step((x, y), step).backward()
        optimizer.step()

        torch.manual_seed(step)
        terms = other.model(torch.rand(8, 1, 2, 3))
        loss, _ = other.objective.weigh(terms, step)
        loss_of_discriminator, _ = other.objective.discriminate(terms, step)
        for player, its_loss in ((of_model, loss), (of_discriminator, loss_of_discriminator)):
            player.zero_grad()
            its_loss.backward()
            player.step()
    for got, wanted in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("algorithm", ["norm", "value", None])
def test_gradients_are_clipped_for_each_player_by_itself(algorithm):
    module = a_module()
    optimizer = module.configure_optimizers()
    for group, size in zip(optimizer.param_groups, (100.0, 0.01), strict=True):
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, size)
    before = [p.grad.clone() for p in module.objective.discriminator.parameters()]
    module.configure_gradient_clipping(optimizer, 0.5, algorithm)
    after = torch.cat([p.grad.flatten() for p in module.model.parameters()])
    clipped = after.abs().max() if algorithm == "value" else after.norm()
    assert clipped.item() == pytest.approx(0.5, rel=1e-4)
    for p, unclipped in zip(module.objective.discriminator.parameters(), before, strict=True):
        assert torch.equal(p.grad, unclipped)


@pytest.mark.parametrize("limit", [None, 0, 0.0])
def test_a_limit_of_zero_clips_nothing(limit):
    module = a_module()
    optimizer = module.configure_optimizers()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.configure_gradient_clipping(optimizer, limit)
    assert all((p.grad == 1).all() for p in module.parameters())


def test_options_that_the_optimizer_does_not_have_are_refused_at_once():
    with pytest.raises(ValueError, match=r"discriminator_optimizer must hold options .* 'betas'"):
        a_module(partial(torch.optim.SGD, lr=0.1), betas=[0.5, 0.9])
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        a_module(lr=-1.0)
