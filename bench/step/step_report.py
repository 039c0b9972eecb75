"""The table of a workload's steps that is printed at the end of a benchmark run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench.step.step_measure import Measurement, Result
from bench.timing.interleaved import Timing

MEASUREMENTS = pytest.StashKey[list[Measurement]]()
"""Where a session keeps its measurements."""


@dataclass(frozen=True)
class Goal:
    """An upper limit for the ratio of two variants' median times; on a GPU, of the device's times."""

    numerator: str
    denominator: str
    cpu: float | None
    gpu: float | None

    def verdict(self, ratio: float, *, cuda: bool) -> str:
        limit = self.gpu if cuda else self.cpu
        if limit is None:
            return "no goal here"
        return f"goal <= {limit:.2f}: {'reached' if ratio <= limit else 'missed'}"


GOALS = (
    Goal("fastdat DAT", "eager SNGAN", cpu=1.0, gpu=1.0),
    Goal("fastdat DAT", "eager released DAT", cpu=0.50, gpu=0.20),
    Goal("fastdat DAT second order", "eager released DAT", cpu=0.75, gpu=None),
    Goal("fastdat DAT", "fastdat SNGAN", cpu=1.68, gpu=1.70),
    Goal("fastdat DAT second order", "fastdat SNGAN", cpu=None, gpu=2.40),
    Goal("fastdat DAT", "fastdat DAT, not folded", cpu=None, gpu=None),
    Goal("fastdat DAT second order", "fastdat DAT second order, not folded", cpu=None, gpu=None),
    Goal("fastdat GP", "eager WGAN-GP", cpu=0.65, gpu=None),
    Goal("fastdat RpGAN + R1 + R2", "eager RpGAN + R1 + R2", cpu=0.60, gpu=None),
    Goal("fastdat DAT second order + R1 + R2", "fastdat DAT second order", cpu=1.03, gpu=None),
    Goal("fastdat DAT + R1 + R2", "fastdat DAT", cpu=None, gpu=None),
    Goal("fastdat RpGAN + R1 + R2", "fastdat RpGAN", cpu=None, gpu=None),
)


def tables(measurement: Measurement) -> Iterator[str]:
    """The lines about one workload."""
    workload = measurement.workload
    peak = measurement.peak_flops_per_second / 1e12
    forward = [f"{result.forward_flops / 1e9:.2f} GFLOP" for result in measurement.results.values()]
    yield (
        f"{workload.name}: {measurement.data}; matrix product {peak:.3g} TFLOP/s; "
        f"D's forward pass F = {forward[0] if forward else 'unknown'}"
    )
    separate = f"{'device ms':>11}{'host ms':>9}{'launches':>10}" if workload.cuda else ""
    yield (
        f"{'step':42}{'median ms':>10}{'q20':>9}{'q80':>9}{'n':>4}{separate}{'FLOPs':>8}{'floor':>8}{'of peak':>9}"
        f"{'memory':>10}{'compile':>9}{'error':>9}"
    )
    for name, result in measurement.results.items():
        yield _row(name, result, measurement)
    for name in measurement.left_out:
        yield f"{name:42} not measured: no time was left"
    for name, failure in measurement.failed.items():
        yield f"{name:42} failed: {failure}"
    if measurement.not_separate is not None:
        yield f"host and device were not timed separately: {measurement.not_separate}"
    if measurement.not_captured is not None:
        yield f"no step was captured as a CUDA graph after this failure: {measurement.not_captured}"
    yield from _ratios(measurement)


def _row(name: str, result: Result, measurement: Measurement) -> str:
    if result.timing is None:
        return (
            f"{name:42} not timed: gradients off by {result.error:.2g}, where {result.limit:.2g} is allowed"
        )
    facts = measurement.summary(name)
    memory = "-" if result.peak_bytes is None else f"{result.peak_bytes / 2**20:.0f} MiB"
    compile_time = "-" if result.compile_seconds is None else f"{result.compile_seconds:.1f} s"
    return (
        f"{name:42}{facts['median_ms']:10.2f}{facts['q20_ms']:9.2f}{facts['q80_ms']:9.2f}{facts['n']:4}"
        f"{_device_and_host(result) if measurement.workload.cuda else ''}"
        f"{result.flops_in_forwards:6.2f} F{facts['percent_of_floor']:7.0f}%{facts['percent_of_matmul_peak']:8.0f}%"
        f"{memory:>10}{compile_time:>9}{result.error:9.1g}"
    )


def _device_and_host(result: Result) -> str:
    """Device ms, host ms and launches on a GPU; an asterisk where the device was timed call by call."""
    device, host = (
        "-" if timing is None else f"{timing.median * 1e3:.2f}"
        for timing in (result.device_timing, result.host_timing)
    )
    mark = "*" if result.device_clock == "calls" else " "
    launches = "-" if result.launches is None else str(result.launches)
    return f"{device:>10}{mark}{host:>9}{launches:>10}"


def _ratios(measurement: Measurement) -> Iterator[str]:
    """A line for each goal: the ratio of device times on a GPU, and beside it the ratio of calls."""
    for goal in GOALS:
        pair = [measurement.results.get(name) for name in (goal.numerator, goal.denominator)]
        if any(result is None or result.timing is None for result in pair):
            continue
        name = f"{goal.numerator} / {goal.denominator}"
        work, called = (
            _ratio([getattr(result, clock) for result in pair]) for clock in ("work_timing", "timing")
        )
        verdict = goal.verdict(work, cuda=measurement.workload.cuda)
        beside = f"   as called {called:.2f}" if measurement.workload.cuda else ""
        yield f"  {name:45} {work:5.2f}   {verdict}{beside}"


def _ratio(timings: list[Timing]) -> float:
    return timings[0].median / timings[1].median
