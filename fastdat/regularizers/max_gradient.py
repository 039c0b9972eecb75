"""MaxGP: the largest input gradient of the batch is penalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdat.regularizers.term import SIDES, Needs, Points, Term, squared_norm
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import PositiveInt


@dataclass(frozen=True)
class MaxGP(Term):
    """``weight max |g(x)|^2`` over all reals and fakes of the step (Zhou et al. 2019, reference [35] of the paper).

    The gradient is that of the greatest; where several are equally great up to rounding, as under a linear D, it is
    their mean.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    weight: Strength = 1.0
    every: PositiveInt = 1

    couples = True
    rounds = 2  # the greatest, then how many are as great
    name = "maxgp"
    needs = Needs(gradient=SIDES)

    def __post_init__(self) -> None:
        check_term_fields(self)

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        squares = torch.cat([squared_norm(points.gradient(side)) for side in SIDES])
        greatest = points.greatest(squares)
        # Another pass through the same part may round otherwise.
        least = greatest * (1 - 16 * torch.finfo(squares.dtype).eps)
        as_great = (squares.detach() >= least).to(squares.dtype)
        share = as_great / points.total(as_great).clamp_min(1.0)
        return points.as_total(greatest, (share * squares).sum())
