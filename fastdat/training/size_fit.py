"""A model of time and memory with few constants, fitted to measurements on one device.

    seconds = a launches + b flops + c written
    bytes   = d + fixed + images + e activations

a to e are the constants of a device; the rest is counted by :mod:`fastdat.training.iteration_cost`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastdat.training.iteration_cost import IterationCost

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sized:
    """An iteration that was measured on one device.

    Args:
        name: of the measurement.
        cost: what was counted for it.
        seconds: of an iteration.
        held: bytes that its process held at most: of a GPU, what torch's allocator had taken.
        images: bytes of the data set, which were among them.
    """

    name: str
    cost: IterationCost
    seconds: float
    held: float
    images: float


@dataclass(frozen=True)
class SizeFit:
    """The constants of a device, at least 0.

    Args:
        of_launch: seconds of a layer's launch.
        of_flop, of_written: seconds of a FLOP, and of a byte of activations that is written.
        base: bytes that every process needs, for workspaces.
        of_activation: bytes held for each byte of activations that eager autograd would keep.
    """

    of_launch: float
    of_flop: float
    of_written: float
    base: float
    of_activation: float

    def seconds(self, cost: IterationCost) -> float:
        """Of an iteration, on one device."""
        return self.of_launch * cost.launches + self.of_flop * cost.flops + self.of_written * cost.written

    def held(self, cost: IterationCost) -> float:
        """Bytes that its process holds at most, without the data set."""
        return self.base + cost.fixed + cost.images + self.of_activation * cost.activations


FEWEST = 3
"""Measurements that a fit needs: as many as there are constants of time."""


def fitted(measured: Sequence[Sized]) -> SizeFit:
    """The constants that make the sum of squared relative errors smallest.

    Raises:
        ValueError: there are fewer than :data:`FEWEST` measurements.
    """
    if len(measured) < FEWEST:
        raise ValueError(f"a fit needs {FEWEST} measurements, got {len(measured)}")
    time = [[m.cost.launches, m.cost.flops, m.cost.written] for m in measured]
    memory = [[1.0, m.cost.activations] for m in measured]
    known = [m.images + m.cost.fixed + m.cost.images for m in measured]
    of_time = _least_squares(time, [m.seconds for m in measured], [0.0] * len(measured))
    of_memory = _least_squares(memory, [m.held for m in measured], known)
    return SizeFit(*of_time, *of_memory)


@dataclass(frozen=True)
class Errors:
    """Largest relative errors, of time and of memory."""

    seconds: float
    held: float


def left_out(measured: Sequence[Sized]) -> dict[str, Errors]:
    """By name of a measurement: the errors of the model that is fitted to all others.

    Raises:
        ValueError: too few measurements are left.
    """
    errors = {}
    for i, one in enumerate(measured):
        fit = fitted([*measured[:i], *measured[i + 1 :]])
        errors[one.name] = Errors(
            fit.seconds(one.cost) / one.seconds - 1,
            (fit.held(one.cost) + one.images) / one.held - 1,
        )
    return errors


def largest(errors: dict[str, Errors]) -> Errors:
    """The largest of both, without their signs."""
    return Errors(max(abs(e.seconds) for e in errors.values()), max(abs(e.held) for e in errors.values()))


def _least_squares(columns: list[list[float]], wanted: list[float], known: list[float]) -> list[float]:
    """x >= 0 with the smallest ``sum(((columns x + known) / wanted - 1)^2)``.

    The best of all subsets of columns whose plain solution is not negative; for three columns these are seven.
    """
    y = np.array(wanted)
    scaled = np.array(columns) / y[:, None]
    target = 1 - np.array(known) / y
    unit = np.linalg.norm(scaled, axis=0)
    best: tuple[float, Array] = (float(target @ target), np.zeros(scaled.shape[1]))
    for count in range(1, scaled.shape[1] + 1):
        for subset in map(list, itertools.combinations(range(scaled.shape[1]), count)):
            part = np.linalg.lstsq(scaled[:, subset] / unit[subset], target, rcond=None)[0] / unit[subset]
            error = float(np.sum((scaled[:, subset] @ part - target) ** 2))
            if (part >= 0).all() and error < best[0]:
                x = np.zeros(scaled.shape[1])
                x[subset] = part
                best = (error, x)
    return [float(value) for value in best[1]]
