from __future__ import annotations

from functools import partial

import lightning as L
import pytest
import torch
from small_models import small_vae

from vaelab.data import ImageDataModule
from vaelab.data.sources import Digits
from vaelab.objectives import ELBO
from vaelab.samplers import DeterministicSampler
from vaelab.training import VAEModule


def make() -> VAEModule:
    model = small_vae(DeterministicSampler, x_shape=(1, 8, 8), latent_dim=2).train()
    return VAEModule(model=model, objective=ELBO(), optimizer=partial(torch.optim.Adam, lr=1e-3))


@pytest.mark.parametrize("eval_batch_size", [7, 200, 1000])
def test_validation_figures_are_means_over_images_whatever_the_batches(eval_batch_size):
    module = make()
    data = ImageDataModule(source=Digits(), val_size=200, eval_batch_size=eval_batch_size)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(module, datamodule=data, verbose=False)
    x, _ = data.splits["val"].batch(slice(None))
    module.model.eval()
    assert module.latest["val/elbo"] == pytest.approx(module.model.elbo(x).double().mean().item(), abs=1e-4)


def test_an_empty_batch_counts_nothing():
    module = make().eval()
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        module._evaluate((x, torch.zeros(5)))
        module._evaluate((x[:0], torch.zeros(0)))
    assert module._evaluation.sums()[-1] == 5
