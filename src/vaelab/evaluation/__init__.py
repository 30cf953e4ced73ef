"""Evaluation: what a finished run is worth, each part by itself."""

from vaelab.evaluation.annealing import Annealing
from vaelab.evaluation.anomaly import Anomaly
from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.evaluation.denoising import Denoising
from vaelab.evaluation.disentanglement import Disentanglement
from vaelab.evaluation.latents import Latents
from vaelab.evaluation.likelihood import Likelihood
from vaelab.evaluation.reconstruction import Reconstruction
from vaelab.evaluation.samples import Samples

__all__ = [
    "Annealing",
    "Anomaly",
    "Denoising",
    "Disentanglement",
    "Evaluation",
    "Figure",
    "Latents",
    "Likelihood",
    "Reconstruction",
    "Samples",
    "Subject",
    "mean_figure",
    "no_figure",
]
