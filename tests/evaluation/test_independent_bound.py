"""The k = 5000 bound of a trained VAE on MNIST, found again from nothing but the stored weights."""

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from vaelab.data.idx import read_idx
from vaelab.evaluate import evaluate
from vaelab.experiment import run as train
from vaelab.locations import CONF

K, IMAGES = 5000, 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> Path:
    """A run of Burda et al.'s model, 300 batches long."""
    overrides = [
        f"data.root={mnist_root}",
        "data.binarize=threshold",
        "model.latent_dim=50",
        "model.encoder.hidden=[200,200]",
        "model.decoder.hidden=[200,200]",
        "model.encoder.activation=tanh",
        "model.decoder.activation=tanh",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=300",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
        "callbacks=quiet",
        "logger=none",
    ]
    folder = tmp_path_factory.mktemp("mnist_run")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        train(compose("train", overrides=overrides), directory=folder, overrides=overrides)
    return folder


def test_a_few_lines_find_the_bound_of_a_trained_mnist_vae(trained: Path, mnist_root: Path) -> None:
    options = ("parts=[likelihood]", f"limit={IMAGES}", f"likelihood.k={K}", f"data_root={mnist_root}", "device=cpu")
    figures = {figure.name: figure for figure in evaluate(trained, *options)[str(trained)]}
    found = figures["likelihood/bound"].values

    w = torch.load(trained / "checkpoints/best.ckpt", weights_only=False)["state_dict"]
    w = {name.removeprefix("model."): value.double().numpy() for name, value in w.items()}
    raw = read_idx(mnist_root / "MNIST/raw/t10k-images-idx3-ubyte", dims=3)
    chosen = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:IMAGES].sort().values
    x = (raw[chosen].numpy().reshape(IMAGES, 784) > 127.5).astype(float)

    def layer(name: str, h: np.ndarray) -> np.ndarray:
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    h = np.tanh(layer("encoder.layers.3", np.tanh(layer("encoder.layers.1", x))))
    mean, std = layer("sampler.mean.1", h), np.exp(layer("sampler.log_scale.1", h) / 2)
    for i in range(IMAGES):
        torch.manual_seed(zlib.crc32(f"0/bound, k = {K}/{i}".encode()))  # every image has noise of its own
        noise = torch.randn(K, 1, 50).squeeze(1).double().numpy()
        z = mean[i] + std[i] * noise
        logits = layer("decoder.layers.5", np.tanh(layer("decoder.layers.3", np.tanh(layer("decoder.layers.1", z)))))
        log_px = (x[i] * logits - np.logaddexp(0, logits)).sum(1)
        log_pz = (-(z**2) / 2 - math.log(2 * math.pi) / 2).sum(1)
        log_qz = (-(noise**2) / 2 - math.log(2 * math.pi) / 2 - np.log(std[i])).sum(1)
        log_w = log_px + log_pz - log_qz
        bound = log_w.max() + np.log(np.exp(log_w - log_w.max()).mean())
        assert found[i].item() == pytest.approx(bound, abs=1e-3)
    assert found.mean().item() > -250  # it has learned: an untrained one is at -550
    assert figures["likelihood/elbo"].value < figures["likelihood/bound"].value
