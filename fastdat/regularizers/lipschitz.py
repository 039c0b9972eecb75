"""ALP: D's slope towards an adversarial neighbour of each sample is penalised where it exceeds a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from fastdat.regularizers.random_rows import as_wide, per_sample, uniform_each, uniform_like
from fastdat.regularizers.term import (
    SIDES,
    Bounds,
    Needs,
    Pair,
    Points,
    Tensors,
    Term,
    clipped,
    squared_norm,
    unit,
)
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import Increasing, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

_TINY = 1e-10


@dataclass(frozen=True)
class ALP(Term):
    """Adversarial Lipschitz regularisation (Terjék 2020; reference [30] of the paper), on both sides.

    With a random direction ``v`` of length 1 for each sample, which ``iterations`` power steps turn to where D changes
    most, and a random length ``e``::

        v <- stop(unit(d/dv mean |D(x) - D(clip(x + xi v))|))
        x' = stop(clip(x + e v))
        value = mean over both sides of relu(|D(x) - D(x')| / |x - x'| - target)^2

    The gradient passes through both logits; ``|x - x'|`` is a constant.

    Args:
        weight: factor; a number or a 0-dimensional tensor. 10 is the released code's default.
        every: the term is part of one step in ``every``, ``every`` times as strong.
        target: the slope from which on it is penalised.
        xi: length (2-norm) of the step at which the power step looks at D, in units of the data.
        lengths: the range of ``e``, likewise. These defaults and that of ``xi`` are meant for images of 3 x 32 x 32 in
            [-1, 1]; for d elements a sample, multiply them by ``sqrt(d / 3072)``.
        iterations: number of power steps; 0 leaves the direction random.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    weight: Strength = 10.0
    every: PositiveInt = 1
    target: NonNegativeFloat = 1.0
    xi: PositiveFloat = 10.0
    lengths: Annotated[tuple[PositiveFloat, PositiveFloat], Increasing()] = (0.1, 10.0)
    iterations: NonNegativeInt = 1

    name = "alp"

    def __post_init__(self) -> None:
        check_term_fields(self)

    @property
    def needs(self) -> Needs:
        # A power step: forward 1, input gradient 1. The neighbours: forward 1, backward 2.
        return Needs(logits=True, own=2.0 * self.iterations + 3.0)

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        """For each side ``u_*`` (m, ...), the directions before they have length 1, and ``e_*`` (m,), the lengths."""
        low, high = self.lengths
        drawn = {}
        for side, samples in zip(SIDES, x, strict=True):
            drawn[f"u_{side}"] = uniform_like(samples, generator) - 0.5
            drawn[f"e_{side}"] = low + (high - low) * uniform_each(samples, generator)
        return drawn

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        logits = points.logits()
        directions = Pair(
            *(unit(as_wide(given[f"u_{side}"], x), _TINY) for side, x in zip(SIDES, points.x, strict=True))
        )
        for _ in range(self.iterations):
            directions = self._power_step(points, logits, directions)
        neighbours = Pair(
            *(
                _moved(x, per_sample(given[f"e_{side}"], x) * v, points.bounds)
                for side, x, v in zip(SIDES, points.x, directions, strict=True)
            )
        )
        sides = zip(points.x, neighbours, logits, points.call(*neighbours), strict=True)
        return torch.stack([self._excess(*side).mean() for side in sides]).mean()

    def _power_step(self, points: Points, logits: Pair, directions: Pair) -> Pair:
        """The directions (n, ...) a side in which ``|D(x) - D(clip(x + xi v))|`` grows fastest at the given ones."""
        turned = []
        for side, x, v, here in zip(SIDES, points.x, directions, logits, strict=True):
            end = (x + self.xi * v).detach()
            # The derivative of |.| is a sign, a constant, so that D is differentiated and |.| is not.
            signs = partial(_signs, before=here)
            _, slope = points.linearised_at(side, clipped(end.to(x.dtype), points.bounds), signs)
            change = self.xi / (2 * points.count) * slope.detach() * _inside(end, points.bounds)
            turned.append(unit(change, _TINY))
        return Pair(*turned)

    def _excess(self, x: Tensor, neighbour: Tensor, logits: Tensor, moved_logits: Tensor) -> Tensor:
        """``relu(slope - target)^2`` (n,)."""
        distance = squared_norm((x - neighbour).detach()).sqrt().clamp_min(_TINY)
        return ((logits - moved_logits).abs() / distance - self.target).relu().square()


def _signs(logits: Tensor, before: Tensor) -> Tensor:
    """(n,)."""
    return (logits - before).detach().sign()


def _moved(x: Tensor, by: Tensor, bounds: Bounds) -> Tensor:
    """``clip(x + by)``, a constant."""
    return clipped((x + by).to(x.dtype), bounds).detach()


def _inside(x: Tensor, bounds: Bounds) -> Tensor:
    """1 for each element that clipping leaves as it is, else 0: the derivative of clipping."""
    if bounds is None:
        return torch.ones_like(x)
    return ((x >= bounds[0]) & (x <= bounds[1])).to(x.dtype)
