"""What the frame costs: `python scripts/benchmark_training.py` (a few minutes; prints ratios, not seconds).

Times training epochs of one network (784-400-20, Adam, batch 128, 55,000 images of 28x28) in turn in one process:
  (a) a bare PyTorch loop over the in-memory uint8 tensor, with torch.optim.Adam as it comes,
  (f) the same with the fused Adam that vaelab uses,
  (b) the full Lightning run with logging, progress bar, pictures and checkpoints,
  (c) the tutorial pipeline: torchvision's MNIST, ToTensor, DataLoader, and the bare loop.
The best epoch of each counts, because other work on a machine only ever slows things down. An epoch of (b) lasts from
its first hook to its last, checkpoints included, less its validation pass and the pictures drawn there: the others have
none.

`--families` instead takes one method of every family and prints full run / bare loop for it, where the bare loop is the
same model and objective in plain PyTorch, without Lightning, logging and checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from vaelab.cli import CONF
from vaelab.experiment.assemble import Parts, assemble
from vaelab.experiment.run import quieten

BATCH = 128


class Bare(torch.nn.Module):
    """The network as a tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean, self.log_var = (
            torch.nn.Linear(784, 400),
            torch.nn.Linear(400, 20),
            torch.nn.Linear(400, 20),
        )
        self.back, self.out = torch.nn.Linear(20, 400), torch.nn.Linear(400, 784)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 784)
        h = torch.relu(self.hidden(x))
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        logits = self.out(torch.relu(self.back(z)))
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum()
        return (bce + kl) / len(x)


def bare_epoch(model: Bare, optimizer: torch.optim.Optimizer, images: torch.Tensor) -> float:
    start = time.perf_counter()
    order = torch.randperm(len(images), device=images.device)
    total = torch.zeros((), device=images.device)
    for index in order.split(BATCH):
        loss = model.loss(images[index].float().div_(255))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    total.item()
    return time.perf_counter() - start


def tutorial_epoch(model: Bare, optimizer: torch.optim.Optimizer, loader: DataLoader, device: torch.device) -> float:
    start = time.perf_counter()
    total = 0.0
    for x, _ in loader:
        loss = model.loss(x.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return time.perf_counter() - start


class EpochTimer(L.Callback):
    """Time from the first hook of an epoch to the end of training, less validation."""

    def __init__(self) -> None:
        self.start = self.pause = self.paused = 0.0
        self.seconds = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.start, self.paused = time.perf_counter(), 0.0

    def on_validation_start(self, *_: object) -> None:
        self.pause = time.perf_counter()

    def on_validation_end(self, *_: object) -> None:
        self.paused += time.perf_counter() - self.pause

    def on_train_end(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start - self.paused


def full_run(root: Path, arguments: list[str]) -> tuple[Parts, EpochTimer]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg: DictConfig = compose("train", [f"data.root={root}", "trainer.max_epochs=1", *arguments])
    parts = assemble(cfg, Path(tempfile.mkdtemp()), interactive=True)
    timer = EpochTimer()
    parts.trainer.callbacks.insert(0, timer)
    return parts, timer


def random_mnist(root: Path) -> None:
    """Writes files like MNIST's, of random bytes, for machines without the real ones: the time is the same."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        head = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (n, 28, 28))
        pixels = torch.randint(0, 256, (n * 784,), dtype=torch.uint8).numpy().tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels)
        labels = torch.randint(0, 10, (n,), dtype=torch.uint8).numpy().tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + n.to_bytes(4, "big") + labels)


FAMILIES = {
    "VAE": ["method=vae"],
    "conditional": ["method=cvae"],
    "importance-weighted, K = 50": ["method=iwae", "objective.num_samples=50"],
    "learned prior (VampPrior)": ["method=vampprior"],
    "flow posterior (IAF)": ["method=iaf_vae"],
    "total correlation": ["method=beta_tc_vae"],
    "quantised": ["method=vq_vae"],
    "autoregressive decoder": ["method=pixel_vae"],
    "ladder": ["method=ladder_vae"],
    "deep hierarchy": ["method=hierarchical_vae"],
    "adversarial on z (FactorVAE)": ["method=factor_vae"],
    "adversarial on x (VAE-GAN)": ["method=vae_gan"],
    "semi-supervised": ["method=m2"],
}


def bare_family_epoch(parts: Parts, batches: int) -> float:
    """The model and the objective of a run in a loop of plain PyTorch."""
    model, objective = parts.model.train(), parts.module.objective.train()
    optimizer = torch.optim.Adam(parts.module.parameter_groups(), lr=1e-3, fused=True)
    start = time.perf_counter()
    total = 0.0
    for i, (x, y) in enumerate(parts.data.train_dataloader()):
        if i == batches:
            break
        loss, _ = objective(model(x, y, num_samples=objective.num_samples), i)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    float(total)
    return time.perf_counter() - start


def families(root: Path, rounds: int, batches: int, overrides: list[str]) -> None:
    for name, words in FAMILIES.items():
        full, bare = [], []
        for _ in range(rounds):
            limits = [f"trainer.limit_train_batches={batches}", "trainer.limit_val_batches=1", "callbacks=quiet"]
            parts, timer = full_run(root, [*words, *limits, *overrides])
            parts.trainer.fit(parts.module, datamodule=parts.data)
            full.append(timer.seconds)
            parts, _ = full_run(root, [*words, *limits, *overrides])
            bare.append(bare_family_epoch(parts, batches))
        print(f"{name:<30} {min(full) / min(bare):.2f}   ({1000 * min(bare) / batches:.1f} ms a bare step)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that holds MNIST/raw (default: random bytes)")
    parser.add_argument("--families", action="store_true", help="a row for every family instead")
    parser.add_argument("--batches", type=int, default=40, help="batches timed for a family")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch chooses)")
    parser.add_argument(
        "overrides", nargs="*", help="further overrides of the full run, for example optimizer.fused=true"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    quieten()
    root = options.root or Path(tempfile.mkdtemp())
    if options.root is None:
        random_mnist(root)
    if options.families:
        families(root, options.rounds, options.batches, options.overrides)
        return
    tutorial_data = Subset(MNIST(str(root), train=True, transform=ToTensor()), range(55_000))
    loader = DataLoader(tutorial_data, batch_size=BATCH, shuffle=True)
    parts, _ = full_run(root, options.overrides)
    device = parts.trainer.strategy.root_device
    images = parts.data.splits["train"].x.to(device)
    times: dict[str, list[float]] = {name: [] for name in "afbc"}
    models = {name: Bare().to(device) for name in "afc"}
    optimizers = {
        name: torch.optim.Adam(model.parameters(), lr=1e-3, fused=True if name == "f" else None)
        for name, model in models.items()
    }
    for i in range(options.rounds):
        times["a"].append(bare_epoch(models["a"], optimizers["a"], images))
        times["f"].append(bare_epoch(models["f"], optimizers["f"], images))
        parts, timer = full_run(root, options.overrides)
        parts.trainer.fit(parts.module, datamodule=parts.data)
        times["b"].append(timer.seconds)
        times["c"].append(tutorial_epoch(models["c"], optimizers["c"], loader, device))
        a, b, c = (times[name][-1] for name in "abc")
        print(f"round {i + 1}: (b)/(a) {b / a:.2f}  (c)/(b) {c / b:.2f}")
    best = {name: min(values) for name, values in times.items()}
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, best of {options.rounds} epochs each"
    )
    print(f"(b)/(a) full run / bare loop          {best['b'] / best['a']:.2f}")
    print(f"(b)/(f) full run / bare loop, fused   {best['b'] / best['f']:.2f}")
    print(f"(c)/(b) tutorial pipeline / full run  {best['c'] / best['b']:.2f}")
    print(f"(c)/(a) tutorial pipeline / bare loop {best['c'] / best['a']:.2f}")


if __name__ == "__main__":
    main()
