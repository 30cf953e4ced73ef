"""What the k-sample bound costs: `python scripts/benchmark_evaluation.py` (a minute; prints ratios, not seconds).

Times, in turn in one process, with the 784-200-200-50 tanh model of Burda et al. 2016 and k = 5,000 draws per image:
  (a) the matrix products of the decoder alone, written into memory that is there already,
  (b) the decoder and log p(x|z) in plain PyTorch, which adds biases, tanh and the softplus of every logit to them,
  (c) `importance_bound`, which adds the draws of z, their densities and the sum of the weights,
  (d) the same compiled (`python evaluate.py ... compile=true`), with as many draws at once as are its default.
The shortest CPU time of each counts, because other work on a machine only ever slows things down.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.metrics.importance import importance_bound
from vaelab.models import VAE, build_vae
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

HIDDEN, LATENTS, PIXELS, K = (200, 200), 50, 784, 5000
WIDTHS = (LATENTS, *HIDDEN, PIXELS)


def model() -> VAE:
    return build_vae(
        x_shape=(1, 28, 28),
        latent_dim=LATENTS,
        encoder=partial(MLPEncoder, hidden=HIDDEN, activation="tanh"),
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=partial(MLPDecoder, hidden=HIDDEN, activation="tanh"),
        likelihood=BernoulliLikelihood(),
    ).eval()


def products(draws: int, rows: int) -> Callable[[], None]:
    weights = [torch.randn(a, b) for a, b in pairwise(WIDTHS)]
    out = [torch.empty(rows, width) for width in WIDTHS[1:]]
    z = torch.randn(rows, LATENTS)

    def work() -> None:
        for _ in range(draws // rows):
            h = z
            for weight, memory in zip(weights, out, strict=True):
                h = torch.mm(h, weight, out=memory)

    return work


def plain(vae: VAE, x: torch.Tensor, rows: int) -> Callable[[], None]:
    z = torch.randn(rows, LATENTS)

    def work() -> None:
        for image in x:
            target = image.expand(rows, -1, -1, -1)
            for _ in range(K // rows):
                binary_cross_entropy_with_logits(vae.decoder(z), target, reduction="none").flatten(1).sum(1)

    return work


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--rows", type=int, nargs="+", default=[250, 500, 1000, 2500], help="draws at once, (a) to (c)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vae, compiled, x = model(), model(), torch.bernoulli(torch.full((options.images, 1, 28, 28), 0.2))
    compiled.compile_scoring()
    work: dict[tuple[str, int], Callable[[], object]] = {}
    for rows in options.rows:
        work["a", rows] = products(options.images * K, rows)
        work["b", rows] = plain(vae, x, rows)
        work["c", rows] = partial(importance_bound, vae, x, k=K, rows=rows)
    work["d", 0] = partial(importance_bound, compiled, x, k=K)
    for job in work.values():
        job()  # compiles, and touches the memory
    rounds = [{key: seconds(job) for key, job in work.items()} for _ in range(options.rounds)]
    times = {key: min(times[key] for times in rounds) for key in work}
    best = {name: min(t for (kind, _), t in times.items() if kind == name) for name in "ab"}
    print(f"torch {torch.__version__}, one thread, k = {K}, images: {options.images}, best of {options.rounds} rounds")
    print("rows at once       (b)/(a)  (c)/(a)  (c)/(b)   each with the best (a) and (b) of all")
    for rows in options.rows:
        b, c = (times[kind, rows] for kind in "bc")
        ratios = (b / best["a"], c / best["a"], c / best["b"])
        print(f"{rows:>12,}     " + " ".join(f"{ratio:>8.2f}" for ratio in ratios))
    neighbours = [times["d", 0] / min(times["a", rows] for rows in options.rows) for times in rounds]
    print(f"compiled, (d)/(a): {times['d', 0] / best['a']:.2f}; median of all rounds: {median(neighbours):.2f}")
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
