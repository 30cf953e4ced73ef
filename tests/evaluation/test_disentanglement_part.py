"""The disentanglement part of an evaluation: models that encode the factors of sprites, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaelab.data.sources import Digits, SpriteGrid
from vaelab.evaluation import Disentanglement, Figure, Subject
from vaelab.evaluation.disentanglement import NAMES

SPRITES, _ = SpriteGrid(size=1200).load()


class Encoder(nn.Module):
    """Maps images in the order of the set to given codes."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes, self.latent_shape = codes, tuple(codes.shape[1:])
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.start = 0

    def encode(self, x: Tensor) -> Distribution:
        mean = self.codes[self.start : self.start + len(x)]
        self.start += len(x)
        return Independent(Normal(mean, torch.ones_like(mean)), 1)


def figures_of(codes: Tensor, folder: Path, **options: int) -> dict[str, Figure]:
    part = Subject(Encoder(codes), {"test": SPRITES}, "test", None, "binary", {}, folder)  # type: ignore[arg-type]
    found = Disentanglement(**{"votes": 200, "resamples": 3, **options})(part)
    assert [figure.name for figure in found] == [f"disentanglement/{name}" for name in NAMES]
    return {figure.name.removeprefix("disentanglement/"): figure for figure in found}


def factors() -> Tensor:
    return torch.stack(list(SPRITES.factors.values()), 1).float()


def test_the_factors_themselves_are_perfect(tmp_path: Path) -> None:
    found = figures_of(factors(), tmp_path, bins=40)
    for name in ("factor_vae_score", "beta_vae_score", "dci_disentanglement", "dci_completeness"):
        assert found[name].value == pytest.approx(1, abs=0.05)
    assert found["dci_informativeness"].value > 0.9  # type: ignore[operator]  # 40 rotations in 600 images
    assert found["sap"].value > 0.8  # type: ignore[operator]
    assert found["mig"].value > 0.7  # type: ignore[operator]  # the plug-in estimate of mutual information is too large
    assert all(figure.protocol["factors"] == "shape scale rotation x y" for figure in found.values())
    with_error = ("mig", "sap", "modularity", "dci_informativeness", "factor_vae_score", "beta_vae_score")
    assert all((found[name].error is not None) == (name in with_error) for name in NAMES)


def test_codes_of_other_images_are_useless(tmp_path: Path) -> None:
    shuffled = factors()[torch.randperm(1200, generator=torch.Generator().manual_seed(0))]
    found = figures_of(shuffled, tmp_path)
    for name in ("mig", "sap", "dci_disentanglement", "dci_completeness"):
        assert found[name].value == pytest.approx(0, abs=0.06)
    for name in ("factor_vae_score", "beta_vae_score"):
        assert found[name].value == pytest.approx(0.2, abs=0.15)


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        (torch.ones(1200, 3), "all latent dimensions are constant"),
        (torch.arange(1200.0).view(-1, 1), "at least 2 latent dimensions"),
        (torch.rand(1200, 300), "disentanglement.max_dimensions=300"),
    ],
)
def test_codes_without_scores_say_why(codes: Tensor, why: str, tmp_path: Path) -> None:
    found = figures_of(codes, tmp_path)
    assert all(figure.value is None and why in figure.note for figure in found.values())


def test_data_without_factors_and_too_few_images_say_why(tmp_path: Path) -> None:
    digits, _ = Digits().load()
    part = Subject(Encoder(torch.rand(1797, 3)), {"test": digits}, "test", None, "levels", {}, tmp_path)  # type: ignore[arg-type]
    assert all("data=sprites" in figure.note for figure in Disentanglement()(part))
    part = Subject(Encoder(torch.rand(60, 3)), {"test": SPRITES}, "test", 60, "binary", {}, tmp_path)  # type: ignore[arg-type]
    found = {figure.name.removeprefix("disentanglement/"): figure for figure in Disentanglement(resamples=3)(part)}
    assert "too few" in found["sap"].note
    assert "too few" in found["dci_informativeness"].note
    assert "single image" in found["factor_vae_score"].note
    assert found["mig"].value is not None


@pytest.mark.parametrize("wrong", [{"images": 1}, {"bins": 1}, {"votes": 0}, {"size": 1}, {"resamples": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Disentanglement(**wrong)
