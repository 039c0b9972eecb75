"""R1 and R2 without a second derivative: D's change under small noise in place of its gradient.

``100 mean (D(x) - D(x + 0.01 n))^2`` with standard normal ``n`` is, to first order in the noise and on average over it,
``R1(gamma=0.02)``: ``weight sigma^2 = gamma / 2``. Source: Lin et al. 2025, "Diffusion Adversarial Post-Training for
One-Step Video Generation" (APT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastdat.regularizers.random_rows import as_wide, normal_like
from fastdat.regularizers.term import SIDES, Needs, Pair, Points, Side, Tensors, Term
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import PositiveFloat, PositiveInt


@dataclass(frozen=True)
class FiniteDifference(Term):
    """What both have in common: ``weight mean (D(x) - D(x + sigma n))^2`` on one side; nothing is clipped."""

    weight: Strength = 100.0
    sigma: PositiveFloat = 0.01
    every: PositiveInt = 1

    side: ClassVar[Side]
    """The side whose samples they are."""

    def __post_init__(self) -> None:
        check_term_fields(self)

    @property
    def needs(self) -> Needs:
        return Needs(logits=True, own=1.5)  # on one side: forward 1, backward 2

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        """``noise`` (m, ...)."""
        return {"noise": normal_like(x[SIDES.index(self.side)], generator)}

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        number = SIDES.index(self.side)
        x = points.x[number]
        moved = (x + self.sigma * as_wide(given["noise"], x)).to(x.dtype)
        return (points.logits()[number] - points.call_side(self.side, moved)).square().mean()


class ApproxR1(FiniteDifference):
    """``weight mean (D(x) - D(x + sigma n))^2`` on the reals; n is standard normal.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        sigma: standard deviation of the noise, in units of the data.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "ar1"
    side = "real"


class ApproxR2(FiniteDifference):
    """``weight mean (D(x) - D(x + sigma n))^2`` on the fakes; n is standard normal.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        sigma: standard deviation of the noise, in units of the data.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    name = "ar2"
    side = "fake"
