"""Flows: change of variables, remembered draws, and the library's side effects."""

import sys

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaelab.distributions import Flow
from vaelab.distributions.flow import coupling_layers, load_zuko


class Sinh:
    """f(x) = sinh(x), and its inverse."""

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sinh(), x.cosh().log().sum(-1)

    @property
    def inv(self) -> "Asinh":
        return Asinh()


class Asinh:
    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.asinh(), -0.5 * torch.log1p(x.square()).sum(-1)


class Counting(Sinh):
    calls = 0

    @property
    def inv(self) -> "Asinh":
        Counting.calls += 1
        return Asinh()


def noise(*batch: int) -> Independent:
    torch.manual_seed(0)
    return Independent(Normal(torch.randn(*batch, 6, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)), 1)


def test_density_is_the_change_of_variables_for_own_draws_and_for_others() -> None:
    q = Flow(noise(3), [Sinh(), Sinh()], (1, 2, 3))
    z = q.rsample((4,))
    assert z.shape == (4, 3, 1, 2, 3)
    u = z.flatten(2).asinh().asinh()
    expected = q.base.log_prob(u) - u.cosh().log().sum(-1) - u.sinh().cosh().log().sum(-1)
    torch.testing.assert_close(q.log_prob(z), expected)
    torch.testing.assert_close(q.log_prob(z.clone()), expected)


def test_own_draws_need_no_inverse_and_other_points_do() -> None:
    q = Flow(noise(3), [Counting()], (6,))
    z = q.rsample((4,))
    Counting.calls = 0
    q.log_prob(z)
    assert Counting.calls == 0
    q.log_prob(z + 0)
    assert Counting.calls == 1


def test_draws_without_gradient_are_not_remembered_for_a_density_with_one() -> None:
    base = noise(3)
    base.base_dist.loc.requires_grad_()
    q = Flow(base, [Sinh()], (6,))
    z = q.sample((4,))
    assert q.log_prob(z).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))


def test_density_of_a_batch_broadcasts_against_other_leading_shapes() -> None:
    q = Flow(noise(3), [Sinh()], (6,))
    z = torch.randn(5, 4, 1, 6, dtype=torch.float64)
    assert q.log_prob(z).shape == (5, 4, 3)
    torch.testing.assert_close(q.log_prob(z)[..., 1], q.log_prob(z.expand(5, 4, 3, 6).contiguous())[..., 1])


def test_mean_is_the_image_of_the_base_mean() -> None:
    q = Flow(noise(3), [Sinh()], (2, 3))
    torch.testing.assert_close(q.mean, q.base.mean.sinh().view(3, 2, 3))


@pytest.mark.parametrize("kind", ["affine", "spline"])
@pytest.mark.parametrize(("features", "context"), [(1, 0), (1, 3), (5, 0), (5, 3)])
def test_coupling_layers_have_the_jacobian_of_autograd_and_an_inverse(kind: str, features: int, context: int) -> None:
    torch.manual_seed(0)
    layers = coupling_layers(features, context=context, kind=kind, steps=3, hidden=[8], bins=4).double()
    told = torch.randn(2, context, dtype=torch.float64) if context else None
    base = Independent(Normal(torch.zeros(2, features, dtype=torch.float64), 1.0), 1)
    flow = Flow(base, [layer(told) for layer in layers], (features,))
    u = 2 * torch.randn(2, features, dtype=torch.float64)
    z, log_det = flow._push(u)
    jacobian = torch.autograd.functional.jacobian(lambda t: flow._push(t)[0], u)  # (2, n, 2, n)
    for i in range(2):
        torch.testing.assert_close(log_det[i], jacobian[i, :, i].slogdet().logabsdet)
    torch.testing.assert_close(flow.log_prob(z), base.log_prob(u) - log_det)


def test_unknown_kind_of_coupling_is_refused() -> None:
    with pytest.raises(
        ValueError, match="transform must be one of affine, spline, but is 'splin'; did you mean 'spline'"
    ):
        coupling_layers(4, context=0, kind="splin", steps=1, hidden=[4], bins=4)


def test_loading_the_library_leaves_validation_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    parameters = vars(Distribution)["arg_constraints"]
    load_zuko()
    assert "zuko" in sys.modules
    assert Distribution._validate_args is True
    assert vars(Distribution)["arg_constraints"] is parameters
    with pytest.raises(ValueError, match="scale"):
        Normal(torch.zeros(2), torch.tensor(-1.0))
