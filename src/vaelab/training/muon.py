"""Muon for the matrices of a network, Adam for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Adam, Optimizer

from vaelab.checks import at_least_zero, fraction


class Muon(Optimizer):
    """Steps of orthogonalised momentum for every parameter of two dimensions, and of Adam for all others.

    With M the Nesterov momentum of the gradient (m, n) of a matrix, the step is
    -lr 0.2 sqrt(max(m, n)) (M M^T)^(-1/2) M: all directions of a layer are learned at one rate, however the data scales
    them (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the factor, which gives a step
    the size of one of Adam's, is that of Liu et al. 2025, "Muon is scalable for LLM training"). The root is that of
    `torch.optim.Muon`, by five Newton-Schulz iterations. A step costs more than one of Adam, and fewer are needed: it
    pays where a batch is large, or has many draws of z. A table of vectors (a codebook that is learned by gradient, the
    means of a mixture) has two dimensions, too.

    Args:
        params: the parameters, without groups.
        lr: of the matrices.
        momentum: of the matrices, Nesterov's.
        weight_decay: of the matrices, decoupled.
        adam_lr: of all other parameters.
        betas: of Adam.
        eps: of Adam.
        fused: whether Adam is one kernel for all parameters.

    Raises:
        ValueError: for groups of parameters, a number outside its range, or torch below 2.9.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        *,
        lr: float = 3e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adam_lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool = True,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"Muon needs torch 2.9 or newer, but this is {torch.__version__}; choose optimizer=adam")
        at_least_zero("lr", lr), fraction("momentum", momentum)
        at_least_zero("weight_decay", weight_decay), at_least_zero("adam_lr", adam_lr)
        parameters = list(params)
        if any(isinstance(p, dict) for p in parameters):
            raise ValueError("Muon takes no groups of parameters; choose optimizer=adam")
        matrices, others = ([p for p in parameters if (p.ndim == 2) == flat] for flat in (True, False))
        self.parts: list[Optimizer] = []
        if matrices:
            options: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
            self.parts.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **options))
        if others:
            self.parts.append(Adam(others, lr=adam_lr, betas=betas, eps=eps, fused=fused))
        super().__init__(parameters, {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Makes the groups of the parts its own, so that a schedule of learning rates finds them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
