"""Moving the parts of an event to the channels changes neither density nor KL."""

import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaelab.distributions import ChannelsFirst, OneHot

H, W, GROUPS, CLASSES = 2, 3, 4, 5


def test_axes_are_positions_last_and_parts_flattened_first() -> None:
    mean = torch.arange(2.0 * H * W * GROUPS * CLASSES).view(2, H, W, GROUPS, CLASSES)
    d = ChannelsFirst(Independent(Normal(mean, 1.0), 4), parts=2)
    assert d.batch_shape == (2,)
    assert d.event_shape == (GROUPS * CLASSES, H, W)
    assert d.mean[1, 2 * CLASSES + 3, 1, 2] == mean[1, 1, 2, 2, 3]
    assert d.variance.shape == d.mean.shape


def test_without_positions_the_parts_are_only_flattened() -> None:
    mean = torch.arange(2.0 * GROUPS * CLASSES).view(2, GROUPS, CLASSES)
    assert torch.equal(ChannelsFirst(Independent(Normal(mean, 1.0), 2), parts=2).mean, mean.flatten(1))


def test_density_of_draws_is_the_base_density_of_the_same_numbers() -> None:
    torch.manual_seed(0)
    base = Independent(Normal(torch.randn(2, H, W, GROUPS, CLASSES), 0.7), 4)
    d = ChannelsFirst(base, parts=2)
    z = d.rsample((6,))
    assert z.shape == (6, 2, GROUPS * CLASSES, H, W)
    per_number = Normal(d.mean, 0.7).log_prob(z)
    torch.testing.assert_close(d.log_prob(z), per_number.flatten(2).sum(-1))
    torch.testing.assert_close(d.entropy(), base.entropy())


def test_kl_is_the_kl_of_the_bases() -> None:
    torch.manual_seed(0)
    q_logits, p_logits = torch.randn(2, H, W, GROUPS, CLASSES), torch.randn(H, W, GROUPS, CLASSES)
    q, p = (ChannelsFirst(Independent(OneHot(logits), 3), parts=2) for logits in (q_logits, p_logits))
    log_q, log_p = q_logits.log_softmax(-1), p_logits.log_softmax(-1)
    torch.testing.assert_close(kl_divergence(q, p), (log_q.exp() * (log_q - log_p)).flatten(1).sum(-1))
