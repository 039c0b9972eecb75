"""Benchmark cases of ``perturb_clip``: the move of the samples in an attack step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.kernel.case import Case, Provider, Shape, short_name
from fastdat.kernels import formulas
from fastdat.kernels.formulas import Limits

DELTA_CLIP, BOUNDS = 1.0, (-1.0, 1.0)
LIMITS = Limits(DELTA_CLIP, BOUNDS)
MARGIN = 1e-5
"""Distance that every element keeps from each limit, so that rounding never decides on which side it lies."""

What = Literal["forward", "stats", "backward"]


@dataclass(frozen=True)
class PerturbClip(Case):
    """``perturb_clip`` on a batch [real; fake]: alone, with its statistics, or with its backward pass."""

    batch: int
    """Samples a side."""
    resolution: int
    dtype: torch.dtype
    channels_last: bool
    what: What
    device: torch.device
    kernel = "perturb_clip"

    @property
    def shape(self) -> Shape:
        return 2 * self.batch, 3, self.resolution, self.resolution

    @property
    def elements(self) -> int:
        return 2 * self.batch * 3 * self.resolution**2

    @property
    def name(self) -> str:
        kind = self.kernel if self.what == "forward" else f"{self.kernel}_{self.what}"
        return f"{kind}-{'x'.join(map(str, self.shape))}-{short_name(self.dtype)}-{self.layout}"

    @property
    def layout(self) -> str:
        return "channels_last" if self.channels_last else "NCHW"

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "dtype": short_name(self.dtype),
            "layout": self.layout,
            "what": self.what,
        }

    @property
    def bytes(self) -> int:
        """x and grad are read, x_hat is written; statistics are two more float32 a sample.

        The backward pass reads the upstream gradient, x and grad, and writes two gradients. Coefficients, and their
        gradients, are one float32 a sample.
        """
        tensors = {"forward": 3, "stats": 3, "backward": 3 + 5}[self.what]
        bytes_a_sample = {"forward": 4, "stats": 4 + 8, "backward": 4 + 8}[self.what]
        return tensors * self.elements * self.dtype.itemsize + bytes_a_sample * self.shape[0]

    @property
    def input_bytes(self) -> int:
        tensors = 3 if self.what == "backward" else 2
        return tensors * self.elements * self.dtype.itemsize + 4 * self.shape[0]

    @property
    def memory_bytes(self) -> int:
        return 36 * 4 * self.elements

    def inputs(self, seed: int) -> tuple[Tensor, ...]:
        """x, grad, coefficient and, backward, the upstream gradient. About half of the elements meet a limit."""
        normal = self._normal(seed)
        x = self._laid_out(torch.erf(normal(*self.shape) / 2**0.5))  # uniform in [-1, 1]
        grad = self._laid_out(normal(*self.shape))
        c = normal(self.shape[0]) * 0.4
        for parts in zip(x.split(self._chunk), grad.split(self._chunk), c.split(self._chunk), strict=True):
            keep_away_from_limits(*parts)
        if self.what != "backward":
            return x, grad, c
        upstream = self._laid_out(normal(*self.shape))
        return *(t.requires_grad_() for t in (x, grad, c)), upstream

    def _laid_out(self, t: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return t.to(self.dtype, memory_format=layout)

    @property
    def _chunk(self) -> int:
        """Samples that are converted to float64 at a time, to save memory."""
        return max(1, (1 << 24) // (3 * self.resolution**2))

    @property
    def _function(self) -> str:
        return "perturb_clip_stats" if self.what == "stats" else "perturb_clip"

    def exact(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        chunks = zip(*(t.detach().split(self._chunk) for t in inputs), strict=True)
        formula = getattr(formulas, self._function)
        results = []
        for chunk in chunks:
            wide = [t.double().requires_grad_(self.what == "backward") for t in chunk]
            results.append(self._call(formula, wide))
        return [torch.cat(pieces) for pieces in zip(*results, strict=True)]

    def providers(self) -> tuple[Provider, ...]:
        return self._providers_of(self._function, self._call)

    def _call(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        """x_hat, then its statistics or, backward, the gradients of x, grad and the coefficient."""
        x, grad, coefficient, *upstream = inputs
        found = function(x, grad, coefficient, LIMITS)  # the signature is used here only
        if self.what == "stats":
            return list(found)
        if self.what == "forward":
            return [found]
        return [found.detach(), *torch.autograd.grad(found, (x, grad, coefficient), upstream)]


def keep_away_from_limits(x: Tensor, grad: Tensor, coefficient: Tensor) -> None:
    """Change the few elements that lie within ``MARGIN`` of a limit, in place."""
    delta = coefficient.double().reshape(-1, 1, 1, 1) * grad.double()
    moved = x.double() + delta.clamp(-DELTA_CLIP, DELTA_CLIP)
    near = (delta.abs() - DELTA_CLIP).abs() < MARGIN
    for bound in BOUNDS:
        near |= (moved - bound).abs() < MARGIN
    x.copy_(torch.where(near, x / 2, x))
    grad.masked_fill_(near, 0.0)
