"""Training: LightningModules and what a Trainer needs besides."""

from vaelab.training.adversarial import AdversarialModule
from vaelab.training.checkpoints import AtomicCheckpointIO
from vaelab.training.interrupt import GracefulStop, Interrupted
from vaelab.training.module import LossNotFinite, VAEModule
from vaelab.training.muon import Muon

__all__ = [
    "AdversarialModule",
    "AtomicCheckpointIO",
    "GracefulStop",
    "Interrupted",
    "LossNotFinite",
    "Muon",
    "VAEModule",
]
