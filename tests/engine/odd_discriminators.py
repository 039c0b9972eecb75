"""Discriminators on (N, 4) that do what few do, some right, some wrong, and what they are stepped with."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.checkpoint import checkpoint

from fastdat import DATConfig

PLAIN = DATConfig(real=False, fake=False)
STRONG = DATConfig(eps=4.0)


def samples(m: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(m, 4, dtype=dtype) * 2 - 1


def of_inference(make: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return make()


class Fixed:
    """A loss that is right."""

    def g1(self, t: Tensor) -> Tensor:
        return t

    def g2(self, t: Tensor) -> Tensor:
        return -t


OUTSIDE = torch.nn.Parameter(torch.ones(()))
Y = torch.randint(5, (4,))


class Net(nn.Module):
    """(N, 4) -> (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 1)

    def mid(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Any:
        return self.b(self.mid(torch.tanh(self.a(x))))


def net(mid: Callable[..., Tensor], *layers: nn.Module) -> Net:
    """One whose features go through ``mid(h, *layers)``."""

    class WithMid(Net):
        def mid(self, h: Tensor) -> Tensor:
            return mid(h, *self.layers)

    D = WithMid()
    D.layers = nn.ModuleList(layers)
    return D


def before(first: Callable[[Tensor], Tensor]) -> Net:
    """One whose input goes through ``first``."""

    class WithFirst(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(first(x))

    return WithFirst()


def after(last: Callable[[Tensor], Any]) -> Net:
    """One whose logits go through ``last``."""

    class WithLast(Net):
        def forward(self, x: Tensor) -> Any:
            return last(super().forward(x))

    return WithLast()


class UnderNoGrad(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class UnderInference(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(x)


class PartUnderInference(Net):
    def mid(self, h: Tensor) -> Tensor:
        with torch.inference_mode():
            twice = 2 * h.detach()
        return h + twice.clone()


class HiddenLayers(Net):
    """Layers in a list, whose parameters D does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(6, 6)]

    def mid(self, h: Tensor) -> Tensor:
        return self.hidden[0](h)


class Conditional(Net):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.b(h).squeeze(1) + (h * self.embedding(y)).sum(1)


class Scaled(Net):
    def forward(self, x: Tensor, scale: Any) -> Tensor:
        return super().forward(x) * scale


class Features(Net):
    """Keeps its features."""

    def mid(self, h: Tensor) -> Tensor:
        self.features = h
        return h


class OwnGradient(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            score = super().forward(x)
            (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score + gradient.square().sum(1, keepdim=True)


class Converts(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.a.weight.dtype))


class ComplexWeight(Net):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, dtype=torch.cdouble))

    def mid(self, h: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(h) * self.w, n=6)


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Linear(4, 6)
        self.c.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)) + self.c(x))


def with_weight_norm() -> Net:
    """torch's older one."""
    D = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        weight_norm(D.a)
    return D


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module)


def traced(module: nn.Module, x: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(module, x)


def tensor_hook() -> Net:
    def halved(h: Tensor) -> Tensor:
        if h.requires_grad:
            h.register_hook(lambda gradient: gradient / 2)
        return h

    return net(halved)


def parametrized(how: Callable[[nn.Module], nn.Module]) -> Net:
    D = Net()
    how(D.a)
    return D


def sequence(h: Tensor) -> Tensor:
    """(N, 6) -> (N, 3, 6)."""
    return h[:, None] * torch.arange(1.0, 4.0, dtype=h.dtype)[:, None]


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "control flow by data": lambda: net(lambda h: h if h.sum() > -1e9 else 2 * h),
    "item": lambda: net(lambda h: h * (1 + h.detach().mean().item() * 0)),
    "numpy": lambda: net(lambda h: h * torch.from_numpy(h.detach().numpy() * 0 + 2)),
    "a choice of Python's": lambda: net(lambda h: h * random.choice([1.5])),
    "generator expression": lambda: net(lambda h: sum(h * i for i in range(1, 3))),
    "list of outputs": lambda: after(lambda logits: [logits]),
    "tensor hook": tensor_hook,
    "tied": Tied,
    "orthogonal": lambda: parametrized(parametrizations.orthogonal),
    "weight norm": lambda: parametrized(parametrizations.weight_norm),
    "weight norm, older": with_weight_norm,
    "checkpoint": lambda: net(lambda h: checkpoint(torch.sin, h, use_reentrant=False)),
    "lstm": lambda: net(lambda h, lstm: lstm(sequence(h))[0][:, -1], nn.LSTM(6, 6, batch_first=True)),
    "attention": lambda: net(
        lambda h, mha: mha(sequence(h), sequence(h), sequence(h))[0].mean(1),
        nn.MultiheadAttention(6, 2, batch_first=True),
    ),
    "fft": lambda: net(lambda h: torch.fft.rfft(h).abs().sum(1, keepdim=True).expand(-1, 6)),
    "complex weight": ComplexWeight,
    "einsum": lambda: net(lambda h: torch.einsum("ni,nj->nij", h, h).sum(2)),
    "keeps its features": Features,
    "own gradient": OwnGradient,
    "gradient by torch.func": lambda: net(lambda h: h + torch.func.grad(lambda t: t.sin().sum())(h)),
    "in place after a layer": lambda: net(lambda h, relu: relu(h * 2), nn.LeakyReLU(0.2, inplace=True)),
    "sparse": lambda: net(lambda h: torch.sparse.mm(torch.eye(6, dtype=h.dtype).to_sparse(), h.T).T),
    "mask": lambda: net(lambda h: h[:, h.detach().abs().mean(0) > -1].sum(1, keepdim=True).expand(-1, 6)),
    "scripted part": lambda: net(lambda h, layer: layer(h), scripted(nn.Linear(6, 6).double())),
    "a layer copied in forward": lambda: net(lambda h: copy.deepcopy(nn.Tanh())(h)),
    "inference mode in a part": PartUnderInference,
    "embedding with max_norm": lambda: net(
        lambda h, e: h + e(torch.arange(1)), nn.Embedding(6, 6, max_norm=1.0)
    ),
}
"""Right in eager mode, in both orders."""


# --- calls ---------------------------------------------------------------------------------------------------------


def given(D: Any = None, xr: Any = None, xf: Any = None, **options: Any) -> dict[str, Any]:
    """The arguments of dat_step, eager, with the right ones where none is given."""
    return {
        "D": Net() if D is None else D,
        "xr": samples() if xr is None else xr,
        "xf": samples() if xf is None else xf,
        "compile": False,
        **options,
    }


def labelled(real: Any, fake: Any = None, D: Any = None, **options: Any) -> dict[str, Any]:
    fake = torch.randint(5, (4,)) if fake is None else fake
    return given(D or Conditional(), args_real=(real,), args_fake=(fake,), **options)
