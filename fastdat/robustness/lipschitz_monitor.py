"""How steep a discriminator is: norms of its input gradient, and the largest singular values of its weights.

Sec. III-C claims that DAT minimises the Lipschitz constant of D. The constant itself cannot be computed. The largest
input gradient that is found is a lower bound of it. The product of the layers' norms is an upper bound for nets of
fully connected layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fastdat.robustness.probe import Args, check_rows, logits_of, probed, split


@dataclass(frozen=True)
class GradientNorms:
    """``||dD/dx||_2`` over a set of samples, in logits by unit of the images.

    Args:
        mean: its mean.
        q95: its 95 % quantile, interpolated.
        max: its largest value.
    """

    mean: float
    q95: float
    max: float

    @classmethod
    def of(cls, norms: Tensor) -> GradientNorms:
        """Those of norms (N,)."""
        norms = norms.double()
        return cls(norms.mean().item(), norms.quantile(0.95).item(), norms.max().item())


@dataclass(frozen=True)
class Steepness:
    """D's input gradients at reals, at fakes, and at points between them."""

    real: GradientNorms
    fake: GradientNorms
    between: GradientNorms


def input_gradient_norms(
    D: nn.Module, x: Tensor, *, args: Args = (), batch_size: int | None = None
) -> Tensor:
    """``||dD/dx||_2`` (N,) of each sample of x (N, ...), with D evaluated and left exactly as it was.

    Args:
        D: images, and ``args`` -> logits (N,) or (N, 1), or a tuple of outputs with logits first.
        x: samples.
        args: D's further arguments, with a row a sample.
        batch_size: samples at a time; None: all.

    Raises:
        ValueError: rows that do not fit, or D does not return one logit a sample.
    """
    check_rows(("x", x), args=args)
    with probed(D):
        return torch.cat([_norms(D, part, tuple(rest)) for part, *rest in split(batch_size, x, *args)])


def lipschitz(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    *,
    generator: torch.Generator | None = None,
    args_real: Args = (),
    args_fake: Args = (),
    batch_size: int | None = None,
) -> Steepness:
    """D's input gradients at reals, at fakes, and between: at ``a xr + (1 - a) xf``, with a ~ U[0, 1] a sample.

    Args:
        D: images -> logits, as in :func:`input_gradient_norms`.
        xr, xf: reals and fakes (N, ...), equally many.
        generator: draws a; None: one with seed 0.
        args_real, args_fake: D's further arguments of each. Points between take those of the reals.
        batch_size: samples at a time; None: all.

    Raises:
        ValueError: reals and fakes of different shapes, and as in :func:`input_gradient_norms`.
    """
    if xr.shape != xf.shape:
        raise ValueError(f"xr and xf must have one shape; got {tuple(xr.shape)} and {tuple(xf.shape)}")
    draws = generator or torch.Generator(xr.device).manual_seed(0)
    a = torch.rand(len(xr), generator=draws, device=draws.device, dtype=xr.dtype).to(xr.device)
    a = a.reshape(-1, *[1] * (xr.ndim - 1))
    places = ((xr, args_real), (xf, args_fake), (a * xr + (1 - a) * xf, args_real))
    return Steepness(
        *(
            GradientNorms.of(input_gradient_norms(D, x, args=args, batch_size=batch_size))
            for x, args in places
        )
    )


def layer_norms(D: nn.Module) -> dict[str, float]:
    """The largest singular value of each weight of D, by the path of its layer.

    A weight of a convolution is taken as its matrix (out, in * k * k), as spectral norm does (SNGAN). That is not the
    norm of the convolution as an operator, which is up to k times as large. Of a weight under spectral or weight norm,
    or under any parametrization of torch, it is that of the weight which D computes with. Under spectral norm it is
    about 1; a value above 1 says that the power iteration lags behind the weights.

    Args:
        D: any net. Vectors (biases, scales of batch norm) are left out.

    Returns:
        Path -> value; NaN of a weight that holds NaN or infinity.
    """
    with probed(D), torch.no_grad():
        return {path: _largest_singular_value(weight, rows) for path, weight, rows in _effective_weights(D)}


def _norms(D: nn.Module, x: Tensor, args: tuple[Tensor, ...]) -> Tensor:
    at = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(D, at, args).sum(), at)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms


def _effective_weights(D: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
    """Name, weight and dimension of the rows of each weight as D computes with it."""
    for path, module in D.named_modules():
        if isinstance(module, ParametrizationList):
            continue  # its tensors are parts of a weight of the layer above
        rows = 1 if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) else 0
        found = dict(module._parameters)
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, (SpectralNorm, WeightNorm)):
                found = {name: p for name, p in found.items() if not name.startswith(f"{hook.name}_")}
                of_spectral = {"do_power_iteration": False} if isinstance(hook, SpectralNorm) else {}
                found[hook.name] = hook.compute_weight(module, **of_spectral)
        for name in getattr(module, "parametrizations", ()):
            found[name] = getattr(module, name)
        for name, weight in found.items():
            if weight is not None and weight.ndim > 1:
                yield (
                    ".".join(part for part in (path, name if name != "weight" else "") if part),
                    weight,
                    rows,
                )


def _largest_singular_value(weight: Tensor, rows: int) -> float:
    """From the smaller of the two Gram matrices, in double precision: many times faster than all singular values."""
    matrix = weight.detach().movedim(rows, 0).flatten(1).double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    if not gram.isfinite().all():
        return math.nan  # the decomposition would raise an error
    return float(torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt())
