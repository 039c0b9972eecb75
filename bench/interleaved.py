"""Times several variants of one step in turns, so that whatever else the machine does falls on all of them alike.

A round runs every variant once, in an order drawn anew. Ratios of two variants are meant to be read within one run.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Step = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds a step took, one number a round."""

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
"""(step, repeats) -> seconds a step, the mean of ``repeats`` in a row."""


def interleave(
    steps: Mapping[str, Step], clock: Clock, *, rounds: int, repeats: int = 1, warmup: int = 2
) -> dict[str, Timing]:
    """Time each step `rounds` times.

    Args:
        steps: name -> one step, which brings its own inputs.
        clock: what reads the time; `as_called` for what a program waits.
        rounds: timings a step.
        repeats: steps that one timing spans; the timing is their mean.
        warmup: untimed rounds before.
    """
    order = list(steps)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(warmup + rounds):
        shuffle(order)
        for name in order:
            elapsed = clock(steps[name], repeats)
            if i >= warmup:
                seconds[name].append(elapsed)
    return {name: Timing(times) for name, times in seconds.items()}


def as_called(device: torch.device) -> Clock:
    """The clock of steps that a program calls one after another: what is slower, the host or the device, decides."""
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
    """A square matrix product on random data, timed in turn with the steps: the ceiling on their rates."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        size = 8192 if device.type == "cuda" else 2048
        self.flops = 2 * size**3
        self._a, self._b = torch.randn(2, size, size, device=device).to(dtype)

    def __call__(self) -> torch.Tensor:
        product: torch.Tensor = self._a @ self._b
        return product


class ReplayClock:
    """A clock for pytest-benchmark that stands still except while a recorded timing is played.

    This is how timings taken in turns become the rounds of one pytest-benchmark test each.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._left: list[float] = []
        self.__name__ = "interleaved"  # the name that the JSON gives the timer

    def __call__(self) -> float:
        return self.now

    def load(self, timing: Timing) -> int:
        """Take the timings to play; returns how many there are."""
        self._left = timing.seconds[::-1]
        return len(self._left)

    def play(self) -> None:
        """Advance by the next timing."""
        self.now += self._left.pop()
