"""Models and objectives need neither Lightning nor Hydra."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from functools import partial
import torch
from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import build_vae
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.objectives import ELBO
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

torch.manual_seed(0)
model = build_vae(
    x_shape=(1, 4, 4),
    latent_dim=2,
    encoder=partial(MLPEncoder, hidden=[16]),
    sampler=GaussianSampler,
    prior=StandardNormalPrior,
    decoder=partial(MLPDecoder, hidden=[16]),
    likelihood=BernoulliLikelihood(),
)
objective = ELBO()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = (torch.rand(64, 1, 1, 4) < 0.5).float().expand(64, 1, 4, 4)
losses = []
for step in range(200):
    loss, logs = objective(model(x), step)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.75 * losses[0], losses[::50]
assert not {"lightning", "hydra", "omegaconf"} & set(sys.modules)
"""


def test_a_bare_pytorch_loop_trains_a_model_without_the_frameworks():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
