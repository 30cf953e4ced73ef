"""Features of an ImageNet classifier, where its weights can be had."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import Inception_V3_Weights, inception_v3

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect
SIDE = 299
BATCH = 50


class InceptionFeatures:
    """Images (N, C, H, W) in [0, 1] -> the 2,048 features before the last layer of Inception v3 (Szegedy et al. 2016).

    The weights are torchvision's, downloaded once into its cache. Deviation from the usual FID: those are not the
    weights that Heusel et al. 2017 took, so that distances compare among runs measured here and with nothing else.

    Args:
        device: where to compute.

    Raises:
        ValueError: if the weights are neither in the cache nor to be downloaded.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            network = inception_v3(weights=Inception_V3_Weights.IMAGENET1K_V1)
        except (OSError, RuntimeError) as error:  # no network, or a damaged file
            raise ValueError(
                f"features=inception needs torchvision's weights, which could not be had ({error}); "
                "choose features=own, which needs no download"
            ) from error
        network.fc = nn.Identity()
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Returns the features (N, 2048) of grey or coloured images (N, C, H, W), enlarged to 299x299."""
        return torch.cat([self._embed(part.to(self.device, torch.float32)).cpu() for part in x.split(BATCH)])

    def _embed(self, x: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, device=self.device).view(-1, 1, 1) for values in (MEAN, STD))
        large = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        features: Tensor = self.network((large.expand(-1, 3, -1, -1) - mean) / std)
        return features
