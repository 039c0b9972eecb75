"""Times several steps in turns, so that noise of the machine affects all of them alike.

A round runs every step once, in a new random order. Compare two steps only within one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fastdat.experiments.step_counters import seconds_in_turns

Step = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds that a step took, one number a round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def quantile(self, q: float) -> float:
        """The q-quantile of the rounds, interpolated."""
        return float(torch.quantile(torch.tensor(self.seconds, dtype=torch.float64), q))

    def summary(self) -> dict[str, Any]:
        return {
            "n": len(self.seconds),
            "median_ms": self.median * 1e3,
            "q20_ms": self.quantile(0.2) * 1e3,
            "q80_ms": self.quantile(0.8) * 1e3,
        }


Clock = Callable[[Step, int], float]
"""Function (step, repeats) -> seconds a step: the mean over ``repeats`` calls in a row."""


def interleave(
    steps: Mapping[str, Step], clock: Clock, *, rounds: int, repeats: int = 1, warmup: int = 2
) -> dict[str, Timing]:
    """Time each step ``rounds`` times.

    Args:
        steps: name -> step, which has its own inputs.
        clock: how a step is timed, for example `as_called`.
        rounds: timings of each step.
        repeats: calls in one timing, which is their mean.
        warmup: rounds before the timed ones.
    """
    seconds = seconds_in_turns(steps, lambda step: clock(step, repeats), rounds=rounds, warmup=warmup)
    return {name: Timing(times) for name, times in seconds.items()}


def as_called(device: torch.device) -> Clock:
    """The clock of a program that calls steps one after another: the slower of host and device decides."""
    return _events if device.type == "cuda" else _host


def _host(step: Step, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def _events(step: Step, repeats: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3 / repeats


class MatrixProduct:
    """A square matrix product of random data, timed in turns with the steps: the ceiling for their rates."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        size = 8192 if device.type == "cuda" else 2048
        self.flops = 2 * size**3
        self._a, self._b = torch.randn(2, size, size, device=device).to(dtype)

    def __call__(self) -> torch.Tensor:
        product: torch.Tensor = self._a @ self._b
        return product


class ReplayClock:
    """A clock for pytest-benchmark that moves only when a recorded timing is played.

    With it, timings that were taken in turns become the rounds of one pytest-benchmark test a step.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._left: list[float] = []
        self.__name__ = "interleaved"  # name of the timer in the JSON

    def __call__(self) -> float:
        return self.now

    def load(self, timing: Timing) -> int:
        """Set the timings to play; returns their number."""
        self._left = timing.seconds[::-1]
        return len(self._left)

    def play(self) -> None:
        """Move the clock by the next timing."""
        self.now += self._left.pop()
