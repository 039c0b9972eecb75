"""DigGAN: the norms of D's input gradient on real and on fake are drawn together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fastdat.regularizers.term import SIDES, Needs, Points, Term, norm
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import PositiveInt


@dataclass(frozen=True)
class DigGAN(Term):
    """``weight mean_i (|g(xr_i)| - |g(xf_i)|)^2``, real i with fake i (Fang et al. 2022, "DigGAN").

    The released code averages each norm half and half with that of the step before; here each step is its own.

    Args:
        weight: factor; a number or a 0-dimensional tensor. 1000 is the paper's for CIFAR-10.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    weight: Strength = 1000.0
    every: PositiveInt = 1

    name = "diggan"
    needs = Needs(gradient=SIDES)

    def __post_init__(self) -> None:
        check_term_fields(self)

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return (norm(points.gradient("real")) - norm(points.gradient("fake"))).square().mean()
