"""The tables of kernels that are printed at the end of a benchmark run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from bench.kernel.case import FASTDAT, PARAMETRIZATION
from bench.kernel.kernel_measure import KernelMeasurement
from bench.kernel.perturb_clip import PerturbClip
from bench.kernel.spectral_norm import SpectralNorm
from bench.timing.interleaved import Timing

KERNELS = pytest.StashKey[list[KernelMeasurement]]()
"""Where a session keeps its measurements."""

LARGE = 256 << 20
"""Bytes from which on ``perturb_clip`` has a goal."""
PERCENT_OF_COPY = 90.0
"""Goal of ``perturb_clip``, forward: at least this share of the copy's rate."""
TIMES_FASTER = 10.0
"""Goal of ``spectral_norm``: at least this many times as fast as torch's parametrization."""
TIMES_FLOOR = 2.0
"""Goal of ``spectral_norm``: at most this many times the time of moving ``Case.bytes`` at the copy's rate."""


def tables(measurements: Sequence[KernelMeasurement]) -> Iterator[str]:
    """The lines about all cases."""
    yield (
        f"{'provider':28}{'median us':>11}{'q20':>10}{'q80':>10}{'n':>4}{'graph us':>10}{'GB/s':>8}{'of copy':>9}"
        f"{'launches':>10}{'first call':>12}{'error':>9}"
    )
    for measurement in measurements:
        case = measurement.case
        yield (
            f"{case.name}: {case.bytes / 2**20:.4g} MiB to move, {measurement.copies} sets of inputs; "
            f"copy {measurement.copy_rate / 1e9:.3g} GB/s"
        )
        for provider in measurement.results:
            yield _row(provider, measurement)
        yield from goals(measurement)


def _row(provider: str, measurement: KernelMeasurement) -> str:
    result, rate = measurement.results[provider], measurement.rate(provider)
    if result.timing is None or rate is None:
        return f"{provider:28} {'not measured' if result.absent else 'not timed'}: {result.problem}"
    timing = result.timing
    graph = "-" if result.graph_timing is None else f"{result.graph_timing.median * 1e6:.1f}"
    launches = "-" if result.launches is None else str(result.launches)
    return (
        f"{provider:28}{timing.median * 1e6:11.1f}{timing.quantile(0.2) * 1e6:10.1f}{timing.quantile(0.8) * 1e6:10.1f}"
        f"{len(timing.seconds):4}{graph:>10}{rate / 1e9:8.3g}{100 * rate / measurement.copy_rate:8.0f}%"
        f"{launches:>10}{result.compile_seconds:10.1f} s{result.error:9.1g}"
    )


def goals(measurement: KernelMeasurement) -> Iterator[str]:
    """A line for each goal of a case, reached or missed; no line where fastdat was not timed."""
    case = measurement.case
    of_attack = isinstance(case, PerturbClip) and case.what == "forward"
    if not of_attack and not isinstance(case, SpectralNorm):
        return
    if case.device.type != "cuda":
        yield "  no goal on a CPU"
        return
    rate = measurement.rate(FASTDAT)
    if rate is not None and of_attack and case.bytes >= LARGE:
        percent = 100 * rate / measurement.copy_rate
        goal = f"fastdat >= {PERCENT_OF_COPY:.0f}% of the copy's rate"
        yield _verdict(goal, f"{percent:.0f}%", percent >= PERCENT_OF_COPY)
    elif rate is not None and not of_attack:
        times = measurement.copy_rate / rate
        yield _verdict(f"fastdat / floor <= {TIMES_FLOOR:g}", f"{times:.2f}", times <= TIMES_FLOOR)
        yield from _against_torch(measurement)


def _against_torch(measurement: KernelMeasurement) -> Iterator[str]:
    """The goal against torch's parametrization, by each clock that both have: graphs, and calls."""
    torch_own, ours = measurement.results[PARAMETRIZATION], measurement.results[FASTDAT]
    clocks: dict[str, tuple[Timing | None, Timing | None]] = {
        "graphs": (torch_own.graph_timing, ours.graph_timing),
        "calls": (torch_own.timing, ours.timing),
    }
    for clock, (theirs, mine) in clocks.items():
        if theirs is not None and mine is not None:
            times = theirs.median / mine.median
            goal = f"{PARAMETRIZATION} / fastdat, {clock}, >= {TIMES_FASTER:g}"
            yield _verdict(goal, f"{times:.1f}", times >= TIMES_FASTER)


def _verdict(goal: str, found: str, reached: bool) -> str:
    return f"  {goal}: {found}, {'reached' if reached else 'missed'}"
