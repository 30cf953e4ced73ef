"""Likelihoods: p(x|z). The decoder emits parameters; the likelihood knows what they mean and what data they may score."""

from vaelab.likelihoods.base import Likelihood
from vaelab.likelihoods.bernoulli import BernoulliLikelihood
from vaelab.likelihoods.gaussian import GaussianLikelihood

__all__ = ["BernoulliLikelihood", "GaussianLikelihood", "Likelihood"]
