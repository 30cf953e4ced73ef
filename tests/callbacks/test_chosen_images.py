"""What is shown of a set that lies class by class are images of all classes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vaelab.callbacks import LatentMonitor, Pictures, drawing
from vaelab.data import Images

SORTED = Images(x=torch.zeros(1000, 1, 2, 2, dtype=torch.uint8), y=torch.arange(1000) // 100)


class Model(SimpleNamespace):
    """Notes the labels of what it is given."""

    training, is_plane, dtype, device = False, True, torch.float32, torch.device("cpu")
    condition = SimpleNamespace(dim=0)

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def __call__(self, x, y):
        self.seen = y
        return SimpleNamespace(latents=())


def test_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(drawing, "samples", lambda model, y, **_: seen.update(samples=y))
    monkeypatch.setattr(drawing, "reconstructions", lambda model, x, y, **_: seen.update(reconstructions=y))
    monkeypatch.setattr(drawing, "manifold", lambda model, **_: None)
    monkeypatch.setattr(drawing, "latent_scatter", lambda model, x, y: seen.update(latents=y))
    assert len(list(Pictures(scatter_images=100)._drawn(Model(), SORTED))) == 4
    assert {name: len(y) for name, y in seen.items()} == {"samples": 32, "reconstructions": 32, "latents": 100}
    assert all(len(y.unique()) > 7 for y in seen.values())


def test_the_kl_by_dimension() -> None:
    model = Model()
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"),
        is_global_zero=True,
        sanity_checking=False,
        loggers=[None],
        datamodule=SimpleNamespace(splits={"val": SORTED}),
    )
    LatentMonitor(images=100).on_validation_epoch_end(trainer, SimpleNamespace(model=model))
    assert len(model.seen) == 100
    assert len(model.seen.unique()) == 10
