"""Penalties on D's input gradient: GP, LP, R1, R2, 0-GP and DRAGAN are one formula at different points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fastdat.regularizers.random_rows import as_wide, per_sample, uniform_each, uniform_like
from fastdat.regularizers.term import SIDES, Needs, Pair, Points, Side, Tensors, Term, norm, squared_norm
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import NonNegativeFloat, PositiveInt

At = Literal["between", "real", "fake", "both", "around"]
Norm = Literal["two-sided", "one-sided", "zero"]

_CLEAN: dict[str, tuple[Side, ...]] = {"real": ("real",), "fake": ("fake",), "both": SIDES}
"""The sides whose clean samples are the points; their gradient is shared with the attack and with other terms."""


class AnyGradientPenalty(Term):
    """What all gradient penalties have in common: ``sum over sides of mean h(g)``, with g the gradient of D's sum.

    For a D with batch norm, g is the gradient of the sum of the logits, as in all public code.
    """

    at: At
    """Where the gradient is taken."""
    norm: Norm
    """What is done to its norm."""
    target: float = 0.0
    """The norm that is aimed at; without a meaning where ``norm`` is ``"zero"``."""

    def __post_init__(self) -> None:
        check_term_fields(self)

    @property
    def needs(self) -> Needs:
        if self.at in _CLEAN:
            return Needs(gradient=_CLEAN[self.at])
        # On half of a batch: forward 1, input gradient 1, its derivative 2.
        return Needs(second_order=True, own=2.0)

    @property
    def couples(self) -> bool:  # type: ignore[override]
        return self.at == "around"  # the standard deviation is that of the whole batch

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        """``a`` (m,), where between the two ends each sample lies; ``u`` (m, ...), the noise of ``"around"``."""
        if self.at in _CLEAN:
            return {}
        drawn = {"a": uniform_each(x.real, generator)}
        if self.at == "around":
            drawn["u"] = uniform_like(x.real, generator)
        return drawn

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        if self.at in _CLEAN:
            gradients = [points.gradient(side) for side in _CLEAN[self.at]]
        else:
            between = _between if self.at == "between" else _around
            gradients = [points.gradient_at("real", between(points, given))]
        return torch.stack([self._h(gradient).mean() for gradient in gradients]).sum()

    def _h(self, gradient: Tensor) -> Tensor:
        """(n, ...) -> (n,)."""
        if self.norm == "zero":
            return squared_norm(gradient)  # without a root: its derivatives are finite everywhere
        above = norm(gradient) - self.target
        return (above.relu() if self.norm == "one-sided" else above).square()


def _between(points: Points, given: Mapping[str, Tensor]) -> Tensor:
    """``a_i xr_i + (1 - a_i) xf_i`` (n, ...); a constant."""
    xr, xf = points.x
    a = per_sample(given["a"], xr)
    return (a * xr + (1 - a) * xf).to(xr.dtype).detach()


def _around(points: Points, given: Mapping[str, Tensor]) -> Tensor:
    """``xr_i + a_i std(xr) / 2 u_i`` (n, ...), std over all elements of the whole batch; a constant."""
    x = points.x.real
    elements = x.detach().double().reshape(len(x), -1)  # the squares of data far from zero are far apart
    first, second = points.mean(torch.stack([elements.mean(1), elements.square().mean(1)], 1)).unbind()
    std = (second - first.square()).clamp_min(0).sqrt()
    return (x + per_sample(given["a"], x) * (0.5 * std) * as_wide(given["u"], x)).to(x.dtype).detach()


@dataclass(frozen=True)
class GradientPenalty(AnyGradientPenalty):
    """Any combination of points and norm.

    Args:
        at: ``"real"``, ``"fake"``, ``"both"``: the clean samples, whose pass and gradient are shared. ``"between"``:
            one random point on the line between each real and its fake. ``"around"``: each real with noise, as in
            :class:`DRAGAN`.
        norm: ``"two-sided"`` is ``(|g| - target)^2``, ``"one-sided"`` ``relu(|g| - target)^2``, ``"zero"`` ``|g|^2``.
        target: the norm that is aimed at.
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    at: At
    norm: Norm
    target: NonNegativeFloat = 1.0
    weight: Strength = 10.0
    every: PositiveInt = 1

    name = "gradient_penalty"


@dataclass(frozen=True)
class _Targeted(AnyGradientPenalty):
    """GP, LP and DRAGAN: a norm is aimed at."""

    weight: Strength = 10.0
    every: PositiveInt = 1
    target: NonNegativeFloat = 1.0


class GP(_Targeted):
    """``weight mean (|g| - target)^2`` between real and fake (Gulrajani et al. 2017; reference [13] of the paper).

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.
        target: the norm that is aimed at.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "gp"
    at = "between"
    norm = "two-sided"


class LP(_Targeted):
    """``weight mean relu(|g| - target)^2`` between real and fake (Petzka et al. 2018, WGAN-LP; reference [34]).

    Args:
        weight: factor; a number or a 0-dimensional tensor. 10 is the released code's default.
        every: the term is part of one step in ``every``, ``every`` times as strong.
        target: the norm from which on a gradient is penalised.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "lp"
    at = "between"
    norm = "one-sided"


class DRAGAN(_Targeted):
    """``weight mean (|g| - target)^2`` around the reals (Kodali et al. 2017, DRAGAN; reference [32]).

    The points are ``xr + a std(xr) / 2 u``: ``u`` is uniform in [0, 1) per element, ``a`` per sample. The standard
    deviation is that of all elements of all reals of the step; its divisor is their number, as in the released code.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.
        target: the norm that is aimed at.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "dragan"
    at = "around"
    norm = "two-sided"


@dataclass(frozen=True)
class ZeroGP(AnyGradientPenalty):
    """``weight mean |g|^2``, zero-centred, without R1's factor 1/2 (Thanh-Tung et al. 2019; reference [37]).

    Args:
        at: ``"real"``, ``"fake"``, ``"both"`` (the sum of the two), or ``"between"`` real and fake, as in [37].
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    at: Literal["real", "fake", "both", "between"] = "real"
    weight: Strength = 10.0
    every: PositiveInt = 1

    name = "0gp"
    norm = "zero"


@dataclass(frozen=True)
class _HalfGamma(AnyGradientPenalty):
    """R1 and R2: the factor is ``gamma / 2``."""

    gamma: Strength = 10.0
    every: PositiveInt = 1

    strength: ClassVar[str] = "gamma"
    norm = "zero"

    @property
    def weight(self) -> float | Tensor:
        return self.gamma / 2


class R1(_HalfGamma):
    """``gamma/2 mean |g|^2`` on the reals (Mescheder et al. 2018; reference [36]).

    The released code leaves out the 1/2: its ``reg_param`` 10 is gamma 20.

    Args:
        gamma: strength; a number or a 0-dimensional tensor, which may be changed in place from step to step.
        every: the term is part of one step in ``every``, ``every`` times as strong; StyleGAN2 takes 16.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "r1"
    at = "real"


class R2(_HalfGamma):
    """``gamma/2 mean |g|^2`` on the fakes (Mescheder et al. 2018; reference [36]).

    Args:
        gamma: strength; a number or a 0-dimensional tensor, which may be changed in place from step to step.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "r2"
    at = "fake"
