"""Small discriminators of every kind that dat_step must serve, for 3x8x8 images unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as hook_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm

SHAPE = (3, 8, 8)


class Conv(nn.Module):
    """Two convolutions, pooling and a linear head, with a spectral norm put on each by ``norm``."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module] = lambda module: module) -> None:
        super().__init__()
        self.conv1 = norm(nn.Conv2d(3, 8, 3, 1, 1))
        self.conv2 = norm(nn.Conv2d(8, 8, 3, 1, 1))
        self.head = norm(nn.Linear(8, 1))

    def features(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(F.leaky_relu(self.conv1(x), 0.2), 2)
        return F.relu(self.conv2(h)).sum((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class BatchNormConv(Conv):
    """Batch norm between the convolutions: samples are coupled while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)  # batch norm would cancel the bias
        self.norm = nn.BatchNorm2d(8)

    def features(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(F.leaky_relu(self.norm(self.conv1(x)), 0.2), 2)
        return F.relu(self.conv2(h)).sum((2, 3))


class Projection(Conv):
    """Conditional: the inner product of the features with a class embedding is added to the logit."""

    def __init__(self) -> None:
        super().__init__(spectral_norm)
        self.embedding = spectral_norm(nn.Embedding(5, 8))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.features(x)
        return self.head(h).squeeze(1) + (self.embedding(y) * h).sum(1)


class TwoHeads(Conv):
    """Logits and four rotation scores."""

    def __init__(self) -> None:
        super().__init__(spectral_norm)
        self.rotation = spectral_norm(nn.Linear(8, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.head(h), self.rotation(h)


class MinibatchStatistics(Conv):
    """A user's own coupling of samples, which no list of layer types would know."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)) + x.std(0).mean()


class Smooth(nn.Module):
    """An MLP with tanh and softplus on (N, 2): a full second derivative, fit for gradcheck."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.softplus(self.b(torch.tanh(self.a(x))))).squeeze(1)


def mlp() -> nn.Module:
    """(N, 2) -> (N, 1)."""
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "smooth": Smooth,
    "conv": Conv,
    "spectral": lambda: Conv(spectral_norm),
    "spectral-hook": lambda: Conv(hook_spectral_norm),
    "batchnorm": BatchNormConv,
    "conditional": Projection,
    "two-heads": TwoHeads,
    "minibatch-statistics": MinibatchStatistics,
}


def make(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The discriminator ``kind``, in training mode."""
    return KINDS[kind]().to(dtype).train()


def batch(
    kind: str, m: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, ...]]]:
    """xr, xf of m samples in [-1, 1] and the further arguments of dat_step."""
    shape = (2,) if kind in ("mlp", "smooth") else SHAPE
    xr, xf = (torch.rand(2, m, *shape, dtype=dtype) * 2 - 1).unbind()
    args = {}
    if kind == "conditional":
        args = {"args_real": (torch.randint(5, (m,)),), "args_fake": (torch.randint(5, (m,)),)}
    return xr, xf * 0.8 + 0.1, args
