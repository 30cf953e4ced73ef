"""Likelihoods p(x|z): the decoder emits parameters, the likelihood knows what they mean and what data they score."""

from vaelab.likelihoods.base import Likelihood, bits_per_dim
from vaelab.likelihoods.bernoulli import BernoulliLikelihood
from vaelab.likelihoods.beta import BetaLikelihood
from vaelab.likelihoods.categorical import CategoricalLikelihood
from vaelab.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from vaelab.likelihoods.discretized_logistic import DiscretizedLogisticLikelihood
from vaelab.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixtureLikelihood
from vaelab.likelihoods.gaussian import GaussianLikelihood
from vaelab.likelihoods.laplace import LaplaceLikelihood
from vaelab.likelihoods.logit_normal import LogitNormalLikelihood

__all__ = [
    "BernoulliLikelihood",
    "BetaLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "GaussianLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "LogitNormalLikelihood",
    "bits_per_dim",
]
