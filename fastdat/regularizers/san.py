"""SAN: the direction of D's last layer is trained to tell reals from fakes as far apart as it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdat.regularizers.term import Needs, Points, Term
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import PositiveInt


@dataclass(frozen=True)
class SAN(Term):
    """``-weight (mean dir(xr) - mean dir(xf))``, the loss of the direction (Takida et al. 2024, "SAN").

    D ends in :class:`fastdat.nets.SANLinear` and returns ``(fun, dir)``: its logits, which train everything but the
    direction of the last layer, and its first further output (n,) or (n, 1), which trains that direction alone. The
    samples are those that the loss sees.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value; in the step, if D returns logits alone.
    """

    weight: Strength = 1.0
    every: PositiveInt = 1

    name = "san"
    needs = Needs(extras=True)

    def __post_init__(self) -> None:
        check_term_fields(self)

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        extras = points.extras()
        if not extras:
            raise ValueError(
                "the regularizer SAN takes D's first further output, but D returns logits alone: let D end in "
                "fastdat.nets.SANLinear and return its (fun, dir)"
            )
        real, fake = extras[0]
        if real.numel() != len(real):
            raise ValueError(
                "the regularizer SAN takes D's first further output as one number a sample, (n,) or (n, 1); got shape "
                f"{tuple(real.shape)}: let D end in fastdat.nets.SANLinear and return its (fun, dir)"
            )
        wide = torch.promote_types(real.dtype, torch.float32)
        return fake.to(wide).mean() - real.to(wide).mean()
