"""What a conditional model is given besides the data, as a vector; and how networks take it in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vaelab.checks import one_of, positive_int

HOW = ("concat", "film")


class Condition(nn.Module):
    """A context, one row for every example -> vectors c (B, dim) for encoder and decoder.

    Attributes:
        dim: width of the vectors; 0 for none.
        how: `concat` (c is appended to the network's input, to images and maps as constant channels) or `film` (c
            shifts and scales every hidden layer: h <- (1 + gamma(c)) h + beta(c), Perez et al. 2018, equation 1).
    """

    dim: int = 0
    how: str = "concat"

    def forward(self, context: Tensor | None) -> Tensor | None:
        """Maps a context (B, ...) to vectors (B, dim), or to None if there is nothing to be given."""
        raise NotImplementedError

    def draw(self, num_samples: int, device: torch.device) -> Tensor | None:
        """Draws a context for samples whose context was not chosen."""
        raise NotImplementedError

    def network_options(self) -> dict[str, int | str]:
        """Returns what a network that takes in c must be told when it is built."""
        return {"context_dim": self.dim, "conditioning": self.how} if self.dim else {}


class Unconditional(Condition):
    """Nothing is given besides the data."""

    def forward(self, context: Tensor | None) -> None:
        """Returns None, whatever the context."""
        return

    def draw(self, num_samples: int, device: torch.device) -> None:
        """Returns None."""
        return


class LabelCondition(Condition):
    """Class labels y (B,), as one-hot vectors or learned embeddings.

    Args:
        num_classes: number of classes, counting from label 0.
        embedding_dim: width of a learned embedding; None takes one-hot vectors.
        how: concat or film.

    Raises:
        ValueError: for a size below 1 or an unknown `how`; when called, for a missing label or one out of range.
    """

    like: Tensor  # empty: tells device and type of the model

    def __init__(self, *, num_classes: int, embedding_dim: int | None = None, how: str = "concat") -> None:
        super().__init__()
        self.num_classes = positive_int("num_classes", num_classes)
        self.how = one_of("how", how, HOW)
        self.dim = num_classes if embedding_dim is None else positive_int("embedding_dim", embedding_dim)
        self.embedding = None if embedding_dim is None else nn.Embedding(num_classes, embedding_dim)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, context: Tensor | None) -> Tensor:
        """Maps labels (B,) to vectors (B, dim)."""
        if context is None or context.ndim != 1 or context.is_floating_point():
            found = "none is given" if context is None else f"it is {context.dtype} of shape {tuple(context.shape)}"
            raise ValueError(f"this model is conditional on labels (B,), whole numbers, but {found}: give context=y")
        # Not on an accelerator while training, which would wait for it at every step: a run checks its labels before.
        if context.device.type == "cpu" or not self.training:
            self._check_range(context)
        context = context.to(self.like.device, torch.int64)
        if self.embedding is not None:
            return self.embedding(context)
        return one_hot(context, self.num_classes).to(self.like.dtype)

    def _check_range(self, labels: Tensor) -> None:
        if labels.numel() and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise ValueError(
                f"labels must lie between 0 and {self.num_classes - 1} for this model, but reach from {labels.min()} "
                f"to {labels.max()}; raise model.condition.num_classes or, where labels are not told (-1), choose "
                "data.labels=null or model=m2"
            )

    def draw(self, num_samples: int, device: torch.device) -> Tensor:
        """Draws labels (num_samples,), all classes with one probability."""
        return torch.randint(self.num_classes, (num_samples,), device=device)


class AttributeCondition(Condition):
    """Attribute vectors y (B, A) of real numbers, as they are.

    Args:
        num_attributes: A.
        how: concat or film.

    Raises:
        ValueError: for a size below 1 or an unknown `how`; when called, for vectors of another size.
    """

    like: Tensor

    def __init__(self, *, num_attributes: int, how: str = "concat") -> None:
        super().__init__()
        self.dim = positive_int("num_attributes", num_attributes)
        self.how = one_of("how", how, HOW)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, context: Tensor | None) -> Tensor:
        """Maps attributes (B, A) to the same vectors, in the type of the model."""
        if context is None or tuple(context.shape[1:]) != (self.dim,):
            found = "none are given" if context is None else f"they are of shape {tuple(context.shape)}"
            raise ValueError(f"this model is conditional on attributes (B, {self.dim}), but {found}: give context=y")
        return context.to(self.like.device, self.like.dtype)

    def draw(self, num_samples: int, device: torch.device) -> Tensor:
        """Refuses: the distribution of attributes is not known."""
        raise ValueError(f"samples need their attributes: sample(n, context=y) with y ({num_samples}, {self.dim})")


class FiLM(nn.Module):
    """h <- (1 + gamma(c)) h + beta(c), with gamma and beta linear and 0 at the start (Perez et al. 2018, equation 1).

    Args:
        context_dim: width of c.
        channels: channels (or units) of h.
    """

    def __init__(self, context_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(context_dim, 2 * channels)
        nn.init.zeros_(self.linear.weight), nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Modulates h (B, channels) or (B, channels, height, width) by c (B, context_dim)."""
        gamma, beta = self.linear(c).chunk(2, -1)
        shape = (*gamma.shape, *(1,) * (h.ndim - 2))
        return (1 + gamma.view(shape)) * h + beta.view(shape)


class Layers(nn.Sequential):
    """Layers one after the other, of which those that are made of such layers or are FiLM get the context, too."""

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps h through all layers."""
        for layer in self:
            h = layer(h, c) if isinstance(layer, (FiLM, Modulated)) else layer(h)
        return h


class Modulated(nn.Module):
    """A layer that has FiLM inside: its forward takes (h, c)."""


def joined(h: Tensor, c: Tensor) -> Tensor:
    """Appends c (B, E) to vectors (B, F), or to maps (B, F, height, width) as E constant channels."""
    if h.ndim == 4:
        c = c[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return torch.cat([h, c.to(h.dtype)], 1)
