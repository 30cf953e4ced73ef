"""Real digits without a download."""

from __future__ import annotations

import numpy as np
import torch

from vaelab.data.images import Images
from vaelab.data.sources.base import Source


class Digits(Source):
    """The 1,797 real handwritten digits of 8x8 pixels, 17 grey levels, that ship with scikit-learn (UCI optdigits)."""

    origin = "scikit-learn's digits"

    def load(self) -> tuple[Images, Images | None]:
        """Returns all digits; they come without an official test set."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
        return Images(x=x, y=torch.from_numpy(digits.target).long(), scale=16), None
