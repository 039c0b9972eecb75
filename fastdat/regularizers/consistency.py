"""AR and RFM: D's output, or an inner layer's, stays the same under a small step up D's own loss.

::

    x' = stop(x + eps d / (|d| + 1e-8)),   d = dL_D/dx with the global means of the loss
    value = sqrt(batch / m) (||phi(x'_r) - phi(x_r)||_F + ||phi(x'_f) - phi(x_f)||_F)

The Frobenius norms are of the whole batch, and are not squared; the gradient passes through both branches. Nothing is
clipped. Source: Zhou and Krähenbühl 2018, "Don't let your discriminator be fooled" (reference [44] of the paper), and
its released code.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from fastdat.regularizers.term import Needs, Pair, Points, Term, squared_norm, unit
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.errors import ConfigError
from fastdat.util.settings import NoneMeans, PositiveFloat, PositiveInt

_Batch = Annotated[PositiveInt | None, NoneMeans("no scaling, as in the released code")]


class Consistency(Term):
    """What AR and RFM have in common; they differ in ``phi``."""

    couples = True
    in_full_precision = True  # a step of eps is lost between two numbers of bf16
    eps: float
    batch: int | None

    def __post_init__(self) -> None:
        check_term_fields(self)

    @abstractmethod
    def phi(self, points: Points, moved: Pair | None) -> Pair:
        """What is compared, (n, ...) a side: at the samples ``moved``, or at the clean ones where it is None."""

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        moved = Pair(
            *(
                (x + self.eps * unit(d, 1e-8)).to(x.dtype).detach()
                for x, d in zip(points.x, points.loss_gradient(), strict=True)
            )
        )
        both = zip(self.phi(points, None), self.phi(points, moved), strict=True)
        squares = torch.stack([squared_norm(_rows(b) - _rows(a)) for a, b in both], 1)  # (n, 2)
        totals = points.total(squares)
        norms = [
            _root(points.as_total(total, here))
            for total, here in zip(totals.unbind(), squares.sum(0).unbind(), strict=True)
        ]
        scale = 1.0 if self.batch is None else math.sqrt(self.batch / points.count)
        return scale * (norms[0] + norms[1])


def _rows(values: Tensor) -> Tensor:
    """(n, ...) -> (n, d), in fp32 or wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32)).reshape(len(values), -1)


def _root(square: Tensor) -> Tensor:
    """``sqrt(square)``, whose derivative is 0 where it is 0."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


@dataclass(frozen=True)
class AR(Consistency):
    """Adversarial regularisation: ``phi`` is D's output; the formula stands at the top of this file.

    Args:
        of: ``"logits"``, or ``"output"``, which is their sigmoid: the released D ends in one.
        weight: factor; a number or a 0-dimensional tensor.
        eps: length (2-norm) of a sample's step, in units of the data.
        batch: the batch size at which ``weight`` is meant: the norm grows with the root of the batch size m, and is
            multiplied by ``sqrt(batch / m)``. None: it is not.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    of: Literal["logits", "output"] = "logits"
    weight: Strength = 10.0
    eps: PositiveFloat = 1e-4
    batch: _Batch = 64
    every: PositiveInt = 1

    name = "ar"

    @property
    def needs(self) -> Needs:
        return Needs(logits=True, loss_gradient=True, own=3.0)  # the moved samples: forward 1, backward 2

    def phi(self, points: Points, moved: Pair | None) -> Pair:
        logits = points.logits() if moved is None else points.call(*moved)
        return Pair(*(t.sigmoid() for t in logits)) if self.of == "output" else logits


@dataclass(frozen=True)
class RFM(Consistency):
    """Robust feature matching: ``phi`` is the output of a submodule of D; the formula stands at the top of this file.

    Args:
        path: name of the submodule, as in ``D.named_modules()``. The released code takes the last hidden convolution,
            before its batch norm and activation.
        weight: factor; a number or a 0-dimensional tensor.
        eps: length (2-norm) of a sample's step, in units of the data.
        batch: the batch size at which ``weight`` is meant, as in :class:`AR`; None: the norm is not scaled.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    path: str
    weight: Strength = 10.0
    eps: PositiveFloat = 1e-4
    batch: _Batch = 64
    every: PositiveInt = 1

    name = "rfm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("RFM.path must name a submodule of D, as in D.named_modules(); got ''")

    @property
    def needs(self) -> Needs:
        return Needs(
            loss_gradient=True, features=self.path, own=3.0
        )  # the moved samples: forward 1, backward 2

    def phi(self, points: Points, moved: Pair | None) -> Pair:
        return points.features(self.path) if moved is None else points.features_at(self.path, *moved)
