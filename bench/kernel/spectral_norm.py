"""Benchmark cases of ``spectral_norm``: all weights of a discriminator, and torch's parametrization beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.kernel.case import COMPILED, EAGER, FASTDAT, PARAMETRIZATION, Case, Provider, Shape
from fastdat.kernels import formulas
from fastdat.nets import SNGANDiscriminator

NORM_EPS = 1e-12


def sngan_shapes(widths: Sequence[int]) -> tuple[Shape, ...]:
    """Weights of an SNGAN discriminator whose blocks have these widths, in the order of the forward pass."""
    first = widths[0]
    shapes: list[Shape] = [(first, 3, 3, 3), (first, first, 3, 3), (first, 3, 1, 1)]
    for a, b in itertools.pairwise(widths):
        shapes += [(a, a, 3, 3), (b, a, 3, 3)]
        if a != b:
            shapes.append((b, a, 1, 1))
    return (*shapes, (1, widths[-1]))


def shapes_at_32() -> tuple[Shape, ...]:
    """Weights of fastdat's own SNGAN discriminator at 32 pixels."""
    named = SNGANDiscriminator(32).named_parameters()
    return tuple(tuple(p.shape) for name, p in named if name.endswith("weight.original"))


SHAPES: dict[int, Callable[[], tuple[Shape, ...]]] = {
    32: shapes_at_32,
    64: partial(sngan_shapes, (64, 128, 256, 512, 1024)),
    128: partial(sngan_shapes, (64, 128, 256, 512, 1024, 1024)),
}
"""Resolution -> weights of SNGAN's discriminator there."""


@dataclass(frozen=True)
class SpectralNorm(Case):
    """``spectral_norm`` of all weights of a discriminator in float32, after one power iteration."""

    net: str
    shapes: tuple[Shape, ...]
    backward: bool
    device: torch.device
    kernel = "spectral_norm"

    @property
    def name(self) -> str:
        return f"{self.kernel}{'_backward' if self.backward else ''}-{self.net}-fp32"

    @property
    def elements(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    @property
    def facts(self) -> dict[str, Any]:
        what = "backward" if self.backward else "forward"
        return {"shape": list(map(list, self.shapes)), "dtype": "fp32", "net": self.net, "what": what}

    @property
    def bytes(self) -> int:
        """W is read twice, W / sigma is written. Backward: G and W are read, dW is written. u and v do not count."""
        return 4 * self.elements * (3 + 3 * self.backward)

    @property
    def input_bytes(self) -> int:
        return 4 * self.elements * (1 + self.backward)

    def inputs(self, seed: int) -> tuple[list[Tensor], ...]:
        """Weights; u and v after five power iterations; and, backward, the gradients of ``W / sigma``."""
        normal = self._normal(seed)
        weights = [normal(*shape) / shape[1:].numel() ** 0.5 for shape in map(torch.Size, self.shapes)]
        us = [nn.functional.normalize(normal(w.shape[0]), dim=0) for w in weights]
        vs = [nn.functional.normalize(normal(w[0].numel()), dim=0) for w in weights]
        _, us, vs = normalised(formulas.spectral_norm, weights, us, vs, iterations=5)
        if not self.backward:
            return weights, us, vs
        return [w.requires_grad_() for w in weights], us, vs, [normal(*w.shape) for w in weights]

    def exact(self, inputs: tuple[list[Tensor], ...]) -> list[Tensor]:
        wide = tuple([t.detach().double() for t in tensors] for tensors in inputs)
        return self._call(formulas.spectral_norm, wide, torch.float64)

    def provider_names(self) -> tuple[str, ...]:
        return EAGER, COMPILED, FASTDAT, PARAMETRIZATION

    def providers(self) -> tuple[Provider, ...]:
        torch_own = Provider(PARAMETRIZATION, self._call_parametrizations, parametrized)
        return *self._providers_of(self.kernel, self._call), torch_own

    def _call(
        self,
        function: Callable[..., Any],
        inputs: tuple[list[Tensor], ...],
        dtype: torch.dtype = torch.float32,
    ) -> list[Tensor]:
        """``W / sigma``, u, v and, backward, dW of every weight."""
        weights, us, vs, *upstream = inputs
        if self.backward and not weights[0].requires_grad:
            weights = [w.requires_grad_() for w in weights]
        outs, us, vs = normalised(function, weights, us, vs, iterations=1, dtype=dtype)
        grads = torch.autograd.grad(outs, weights, upstream[0]) if self.backward else ()
        return [*(t.detach() for t in outs), *us, *vs, *grads]

    def _call_parametrizations(self, prepared: tuple[list[nn.Module], list[Tensor]]) -> list[Tensor]:
        """The same results by torch: one access of every layer's weight in train mode."""
        layers, upstream = prepared
        norms: list[Any] = [layer.parametrizations.weight for layer in layers]  # type: ignore[union-attr]
        with torch.set_grad_enabled(self.backward):
            outs: list[Any] = [layer.weight for layer in layers]
        originals = [norm.original for norm in norms]
        grads = torch.autograd.grad(outs, originals, upstream) if self.backward else ()
        us, vs = [norm[0]._u for norm in norms], [norm[0]._v for norm in norms]
        return [*(t.detach() for t in outs), *us, *vs, *grads]


def normalised(
    function: Callable[..., Any],
    weights: list[Tensor],
    us: list[Tensor],
    vs: list[Tensor],
    iterations: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """``W / sigma``, u and v by ``function``, a spectral_norm of `fastdat.kernels`: its signature is used here only."""
    outs, us, vs, _ = function(weights, us, vs, iterations, NORM_EPS, True, dtype)
    return list(outs), list(us), list(vs)


class _Layer(nn.Module):
    """A weight, which is all that spectral norm uses of a layer."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach())


def parametrized(inputs: tuple[list[Tensor], ...]) -> tuple[list[nn.Module], list[Tensor]]:
    """One layer a weight under torch's parametrization, with u and v of ``inputs``; then the upstream gradients."""
    weights, us, vs, *upstream = inputs
    layers = []
    for weight, u, v in zip(weights, us, vs, strict=True):
        layer = nn.utils.parametrizations.spectral_norm(_Layer(weight), eps=NORM_EPS)
        norm = layer.parametrizations.weight[0]  # type: ignore[union-attr, index]
        norm._u.copy_(u)  # type: ignore[union-attr]
        norm._v.copy_(v)  # type: ignore[union-attr]
        layers.append(layer)
    return layers, upstream[0] if upstream else []
