"""Callbacks: what is drawn and written while training. They use only encode, decode, sample and reconstruct."""

from vaelab.callbacks.latents import LatentMonitor
from vaelab.callbacks.loggers import RunCSVLogger
from vaelab.callbacks.pictures import Pictures
from vaelab.callbacks.probe import LatentProbe
from vaelab.callbacks.progress import EpochLines, ProgressBar

__all__ = ["EpochLines", "LatentMonitor", "LatentProbe", "Pictures", "ProgressBar", "RunCSVLogger"]
