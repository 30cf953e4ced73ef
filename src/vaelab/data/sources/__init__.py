"""Where images come from. A source returns the official training set and, where there is one, the official test set."""

from vaelab.data.sources.arrays import Arrays
from vaelab.data.sources.base import Source
from vaelab.data.sources.digits import Digits
from vaelab.data.sources.image_folder import ImageFolder
from vaelab.data.sources.sprites import SpriteGrid
from vaelab.data.sources.torchvision import TorchvisionSource

__all__ = ["Arrays", "Digits", "ImageFolder", "Source", "SpriteGrid", "TorchvisionSource"]
