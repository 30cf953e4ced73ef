"""Distributions that torch lacks and that samplers and priors share."""

from vaelab.distributions.channels import ChannelsFirst
from vaelab.distributions.codes import Codebook, Coded
from vaelab.distributions.flow import Bijection, Flow
from vaelab.distributions.mixture import Mixture
from vaelab.distributions.one_hot import OneHot, RelaxedOneHot
from vaelab.distributions.sphere import UniformSphere, VonMisesFisher

__all__ = [
    "Bijection",
    "ChannelsFirst",
    "Codebook",
    "Coded",
    "Flow",
    "Mixture",
    "OneHot",
    "RelaxedOneHot",
    "UniformSphere",
    "VonMisesFisher",
]
