"""Data: sets of images held as one tensor, their splits, binarisation and batches."""

from vaelab.data.images import Images
from vaelab.data.module import ImageDataModule

__all__ = ["ImageDataModule", "Images"]
