"""Regularizers of discriminators so simple that value and gradient can be written down, in float64.

``LINEAR`` is for ``D(x) = w . x + b``: of each term the value, and the gradient for w. ``QUADRATIC`` is for
``D(x) = x' A x / 2`` with a symmetric A: of each term the value, and the gradient for A. No formula here uses autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastdat import DATConfig
from fastdat.regularizers import (
    ALP,
    AR,
    BCR,
    CR,
    DRAGAN,
    GP,
    LP,
    R1,
    R2,
    ApproxR1,
    ApproxR2,
    DigGAN,
    MaxGP,
    Term,
    ZeroGP,
)

M, SHAPE = 7, (2, 3, 5)
D_IN = math.prod(SHAPE)
PLAIN = DATConfig(real=False, fake=False, bounds=None)


class Linear(nn.Module):
    """``w . x + b``."""

    def __init__(self, length: float = 1.5) -> None:
        super().__init__()
        w = torch.linspace(-1.0, 2.0, D_IN, dtype=torch.float64).cos()
        self.w = nn.Parameter(length * w / w.norm())
        self.b = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w + self.b


class Quadratic(nn.Module):
    """``x' A x / 2`` with a symmetric A."""

    def __init__(self) -> None:
        super().__init__()
        i = torch.arange(D_IN, dtype=torch.float64)
        self.A = nn.Parameter(torch.cos(i[:, None] + i) + 0.3 * torch.cos(i[:, None] * i) + i.diag() / 20)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return ((x @ self.A) * x).sum(1) / 2


def samples(m: int = M) -> tuple[Tensor, Tensor]:
    """xr, xf, so small that a hinge loss of ``Linear()`` is in its linear part."""
    generator = torch.Generator().manual_seed(5)
    xr, xf = torch.rand(2, m, *SHAPE, dtype=torch.float64, generator=generator).unbind()
    return 0.4 * xr - 0.1, 0.3 * xf - 0.2


@dataclass(frozen=True)
class Stretched:
    """An augmentation: ``(1 + u_0) x + u_1``."""

    draws_per_sample: int = 2

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        u0, u1 = (u.to(x.dtype).reshape(-1, 1, 1, 1) for u in draws.unbind(1))
        return (1 + u0) * x + u1


class Problem(NamedTuple):
    """What a formula may use: D's parameter, samples (m, d), random numbers in float64, bounds."""

    p: Tensor
    xr: Tensor
    xf: Tensor
    draws: dict[str, Tensor]
    bounds: tuple[float, float] | None


Formula = Callable[[Problem], tuple[Tensor, Tensor]]
"""Value of a term, and its gradient for D's parameter."""


class Case(NamedTuple):
    """A term, and what it is under one kind of D."""

    term: Term
    expected: Formula
    config: DATConfig = PLAIN


# --- linear ---------------------------------------------------------------------------------------------------------


TINY = 1e-12
"""Under the root of a norm, so that its derivative is finite at zero."""


def two_sided(weight: float, target: float, tiny: float = TINY) -> Formula:
    """``weight (|w| - target)^2``: the gradient of a linear D is w everywhere."""

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        length = (at.p.square().sum() + tiny).sqrt()
        return weight * (length - target) ** 2, 2 * weight * (length - target) * at.p / length

    return expected


def zero_centred(weight: float) -> Formula:
    return lambda at: (weight * at.p @ at.p, 2 * weight * at.p)


def nothing(at: Problem) -> tuple[Tensor, Tensor]:
    return torch.zeros((), dtype=at.p.dtype), torch.zeros_like(at.p)


def consistency(weight: float, eps: float, scale: float, m: int = M) -> Formula:
    """x' = xr - eps w/|w|, xf + eps w/|w|, so that ``2 weight scale eps |w| sqrt(m)``; |d| is |w|/m there."""

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        w, length = at.p, at.p.norm()
        way = eps * (w / m) / (length / m + 1e-8)
        factor = 2 * weight * scale * math.sqrt(m)
        return factor * (w @ way).abs(), factor * way

    return expected


def consistency_of_output(at: Problem) -> tuple[Tensor, Tensor]:
    """AR of the sigmoid s, with eps 0.05 and weight 10: ``ds/dw = s (1 - s) x`` in both branches."""
    w, b = at.p, 0.1
    way = 0.05 * (w / M) / (w.norm() / M + 1e-8)
    value, gradient = torch.zeros((), dtype=w.dtype), torch.zeros_like(w)
    for x, moved in ((at.xr, at.xr - way), (at.xf, at.xf + way)):
        s, s_moved = (x @ w + b).sigmoid(), (moved @ w + b).sigmoid()
        difference, norm = s_moved - s, (s_moved - s).norm()
        slopes = (s_moved * (1 - s_moved))[:, None] * moved - (s * (1 - s))[:, None] * x
        value = value + norm
        gradient = gradient + (difference[:, None] * slopes).sum(0) / norm
    return 10 * math.sqrt(64 / M) * value, 10 * math.sqrt(64 / M) * gradient


def lipschitz(iterations: int, xi: float = 10.0) -> Formula:
    """ALP step by step: the slope of D towards x' is ``w . (x' - x) / |x' - x|``. Target 1, weight 10."""

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        w, value, gradient = at.p, torch.zeros((), dtype=at.p.dtype), torch.zeros_like(at.p)
        low, high = at.bounds or (-math.inf, math.inf)
        for side, x in (("real", at.xr), ("fake", at.xf)):
            u = at.draws[f"u_{side}"].flatten(1)
            v = u / (u.norm(dim=1, keepdim=True) + 1e-10)
            for _ in range(iterations):
                end = x + xi * v
                change = (end.clamp(low, high) - x) @ w
                v = xi / (2 * M) * change.sign()[:, None] * ((end >= low) & (end <= high)) * w
                v = v / (v.norm(dim=1, keepdim=True) + 1e-10)
            way = (x + at.draws[f"e_{side}"][:, None] * v).clamp(low, high) - x
            way = way / way.norm(dim=1, keepdim=True).clamp_min(1e-10)
            slope = way @ w
            above = (slope.abs() - 1).relu()
            value = value + 10 * above.square().sum() / (2 * M)
            gradient = gradient + 20 * ((above * slope.sign())[:, None] * way).sum(0) / (2 * M)
        return value, gradient

    return expected


def finite_difference(weight: float, sigma: float) -> Formula:
    """``weight sigma^2 mean (w . n_i)^2``."""

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        n = at.draws["noise"].flatten(1)
        change = n @ at.p
        return weight * sigma**2 * change.square().mean(), 2 * weight * sigma**2 * (change @ n) / len(n)

    return expected


def stretched(*sides: tuple[str, float]) -> Formula:
    """``weight mean (u_0 w . x + u_1 sum(w))^2``, summed over (side, weight)."""

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        value, gradient = nothing(at)
        for side, weight in sides:
            x = at.xr if side == "real" else at.xf
            u0, u1 = at.draws[side].unbind(1)
            way = u0[:, None] * x + u1[:, None]
            change = way @ at.p
            value = value + weight * change.square().mean()
            gradient = gradient + 2 * weight * (change @ way) / M
        return value, gradient

    return expected


LINEAR = {
    "gp": Case(GP(), two_sided(10, 1)),
    "gp-target": Case(GP(weight=3.0, target=2.5), two_sided(3, 2.5)),
    "lp": Case(LP(weight=4.0), two_sided(4, 1)),
    "lp-below": Case(LP(target=1.6), nothing),
    "dragan": Case(DRAGAN(weight=6.0), two_sided(6, 1)),
    "r1": Case(R1(gamma=7.0), zero_centred(3.5)),
    "r2": Case(R2(gamma=3.0), zero_centred(1.5)),
    "0gp-real": Case(ZeroGP(), zero_centred(10)),
    "0gp-fake": Case(ZeroGP("fake", weight=2.0), zero_centred(2)),
    "0gp-both": Case(ZeroGP("both", weight=2.0), zero_centred(4)),
    "0gp-between": Case(ZeroGP("between", weight=5.0), zero_centred(5)),
    "ar": Case(AR(eps=0.05), consistency(10, 0.05, math.sqrt(64 / M))),
    "ar-unscaled": Case(AR(weight=3.0, eps=0.02, batch=None), consistency(3, 0.02, 1)),
    "ar-output": Case(AR("output", eps=0.05), consistency_of_output),
    "alp": Case(ALP(), two_sided(10, 1, tiny=0)),  # one power step finds w or -w
    "alp-twice": Case(ALP(iterations=2), two_sided(10, 1, tiny=0)),
    "alp-random": Case(ALP(iterations=0, target=1.0), lipschitz(0)),
    "alp-bounds": Case(
        ALP(xi=0.6, lengths=(0.2, 3.0)), lipschitz(1, 0.6), replace(PLAIN, bounds=(-0.25, 0.35))
    ),
    "ar1": Case(ApproxR1(), finite_difference(100, 0.01)),
    "ar2": Case(ApproxR2(weight=30.0, sigma=0.2), finite_difference(30, 0.2)),
    "cr": Case(CR(augment=Stretched()), stretched(("real", 10))),
    "bcr": Case(BCR(weight=4.0, fake_ratio=0.5, augment=Stretched()), stretched(("real", 4), ("fake", 2))),
    "diggan": Case(DigGAN(), nothing),
    "maxgp": Case(MaxGP(weight=2.0), zero_centred(2)),
}

# --- quadratic ------------------------------------------------------------------------------------------------------


def penalised(
    h: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], *weights: tuple[str, float]
) -> Formula:
    """``weight mean h(|A x_i|)`` summed over (where, weight); the gradient is ``mean h'(n)/n (A x x' + x x' A)/2``.

    ``where`` is "real", "fake", or "between" them at the numbers ``a``.
    """

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        A, value, gradient = at.p, torch.zeros((), dtype=at.p.dtype), torch.zeros_like(at.p)
        for where, weight in weights:
            a = at.draws["a"][:, None] if where == "between" else float(where == "real")
            x = a * at.xr + (1 - a) * at.xf
            n = norms(x @ A)
            xx = torch.einsum("n,ni,nj->ij", slope(n) / n, x, x) / len(x)
            value = value + weight * h(n).mean()
            gradient = gradient + weight * (A @ xx + xx @ A) / 2
        return value, gradient

    return expected


def norms(g: Tensor) -> Tensor:
    """(n, d) -> (n,)."""
    return (g.square().sum(1) + TINY).sqrt()


def squares(*weights: tuple[str, float]) -> Formula:
    """``penalised`` with ``h(n) = n^2``, without the tiny number under the root."""

    def expected(at: Problem) -> tuple[Tensor, Tensor]:
        value, gradient = penalised(lambda n: n**2, lambda n: 2 * n, *weights)(at)
        return value - TINY * sum(weight for _, weight in weights), gradient

    return expected


def norms_apart(at: Problem) -> tuple[Tensor, Tensor]:
    """DigGAN, weight 1000: ``1000 mean (|A xr_i| - |A xf_i|)^2``."""
    A, gradient = at.p, torch.zeros_like(at.p)
    nr, nf = norms(at.xr @ A), norms(at.xf @ A)
    for x, n, sign in ((at.xr, nr, 1), (at.xf, nf, -1)):
        xx = torch.einsum("n,ni,nj->ij", 2000 * sign * (nr - nf) / n, x, x) / M
        gradient = gradient + (A @ xx + xx @ A) / 2
    return 1000 * (nr - nf).square().mean(), gradient


def greatest(at: Problem) -> tuple[Tensor, Tensor]:
    """MaxGP, weight 2."""
    x = torch.cat([at.xr, at.xf])
    squares = (x @ at.p).square().sum(1)
    x = x[squares.argmax()]
    xx = 2 * torch.outer(x, x)
    return 2 * squares.max(), at.p @ xx + xx @ at.p


QUADRATIC = {
    "r1": Case(R1(gamma=7.0), squares(("real", 3.5))),
    "r2": Case(R2(gamma=3.0), squares(("fake", 1.5))),
    "0gp-both": Case(ZeroGP("both", weight=2.0), squares(("real", 2), ("fake", 2))),
    "0gp-between": Case(ZeroGP("between"), squares(("between", 10))),
    "gp": Case(GP(), penalised(lambda n: (n - 1) ** 2, lambda n: 2 * (n - 1), ("between", 10))),
    "lp": Case(
        LP(target=1.7),
        penalised(lambda n: (n - 1.7).relu() ** 2, lambda n: 2 * (n - 1.7).relu(), ("between", 10)),
    ),
    "diggan": Case(DigGAN(), norms_apart),
    "maxgp": Case(MaxGP(weight=2.0), greatest),
}
