"""Measures every variant of a workload: first whether its gradients are right, then its speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.failures import one_line
from bench.step import correctness, flops, workloads
from bench.step.workloads import Variant, Workload
from bench.timing.device_time import (
    CaptureError,
    captured,
    count_launches,
    failed_capture,
    of_device,
    of_host,
)
from bench.timing.interleaved import MatrixProduct, Step, Timing, as_called, interleave
from fastdat.experiments.step_counters import peak_bytes

LARGEST_GRAPH = 4 << 30
"""Largest device memory of a step, in bytes, for which a CUDA graph is made: larger graphs would fill the device, and
the host's time does not matter for such a step."""


@dataclass
class Result:
    """What is known about one variant."""

    variant: Variant
    error: float
    limit: float
    flops: int
    floor_flops: int
    forward_flops: int
    compile_seconds: float | None = None
    """Duration of the first call with empty caches; None for a variant that is not compiled, and for one whose kernels
    were compiled in another mode before."""
    peak_bytes: int | None = None
    """Memory that the step needs beyond parameters and batches; None for a variant that replays a CUDA graph, which
    keeps its memory."""
    timing: Timing | None = None
    """Steps as a program calls them: the slower of host and device decides. None where the gradients are wrong."""
    device_timing: Timing | None = None
    """The device alone; None on a CPU."""
    device_clock: str | None = None
    """"graph": the steps were replayed as a CUDA graph; "calls": they were called while the host was far ahead."""
    host_timing: Timing | None = None
    """The host alone, until it has launched the whole step; None on a CPU."""
    launches: int | None = None
    """Kernels, copies and fills on the device in one step."""

    @property
    def correct(self) -> bool:
        return self.error <= self.limit

    @property
    def flops_in_forwards(self) -> float:
        return self.flops / self.forward_flops

    @property
    def work_timing(self) -> Timing | None:
        """The time of the computation: that of the device if it is known."""
        return self.device_timing or self.timing


@dataclass
class Measurement:
    """All variants of one workload, measured together."""

    workload: Workload
    data: str
    peak_flops_per_second: float
    """Rate of a large matrix product in the workload's precision."""
    results: dict[str, Result]
    left_out: tuple[str, ...] = ()
    """Variants that were not measured because the time was up."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Variant -> the error that ended it."""
    not_separate: str | None = None
    """Why host and device were not timed separately; None if they were, and on a CPU."""
    not_captured: str | None = None
    """The error of a capture, after which no other step was captured as a CUDA graph."""

    def summary(self, name: str) -> dict[str, Any]:
        """Everything known about a variant, for the JSON."""
        result = self.results[name]
        facts: dict[str, Any] = {
            "workload": self.workload.name,
            "variant": name,
            "shape": [self.workload.batch, 3, self.workload.resolution, self.workload.resolution],
            "data": self.data,
            "gradient_error": result.error,
            "gradient_error_limit": result.limit,
            "flops": result.flops,
            "flops_in_forwards": result.flops_in_forwards,
            "percent_of_floor": 100 * result.flops / result.floor_flops,
            "compile_s": result.compile_seconds,
            "peak_memory_bytes": result.peak_bytes,
            "matmul_peak_tflops": self.peak_flops_per_second / 1e12,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        }
        if result.timing is not None:
            facts |= result.timing.summary()
        for prefix, timing in (("device", result.device_timing), ("host", result.host_timing)):
            if timing is not None:
                facts |= {f"{prefix}_{key}": value for key, value in timing.summary().items()}
        if result.device_clock is not None:
            facts |= {"device_clock": result.device_clock, "launches": result.launches}
        problems = {"not_apart": self.not_separate, "not_captured": self.not_captured}
        facts |= {name: problem for name, problem in problems.items() if problem is not None}
        if result.work_timing is not None:
            rate = result.flops / result.work_timing.median
            facts |= {
                "tflops": rate / 1e12,
                "percent_of_matmul_peak": 100 * rate / self.peak_flops_per_second,
            }
        return facts


def measure(
    workload: Workload,
    rounds: int,
    repeats: int,
    cifar10: Path | None,
    seconds: float = float("inf"),
    note: Callable[[Measurement], None] = lambda measurement: None,
    variants: Sequence[Variant] | None = None,
) -> Measurement:
    """Check every variant, then time in turns those with the right gradients, and a matrix product.

    On a GPU a step is timed in three ways: as a program calls it, the device alone, and the host alone.

    Args:
        workload: what to measure.
        rounds, repeats: as in `interleave`.
        cifar10: folder of the real images; None for noise.
        seconds: after this time no further variant is checked, and those that were are timed. After one and a half
            times as long, host and device are not timed separately.
        note: called with the measurement as soon as the steps have been timed as a program calls them.
        variants: what is measured; those of `workloads.variants_of` unless they are given.
    """
    steps = {step.variant.name: step for step in workloads.steps(workload, cifar10, variants)}
    start = time.monotonic()
    results, left_out, failed = _examine_all(steps, seconds)
    product = MatrixProduct(workload.device, workload.amp or torch.float32)
    timed = {name: step for name, step in steps.items() if name in results and results[name].correct}
    everything: dict[str, Step] = {**timed, _PRODUCT: product}
    timings = interleave(everything, as_called(workload.device), rounds=rounds, repeats=repeats)
    for name in timed:
        results[name].timing = timings[name]
    rate = product.flops / timings[_PRODUCT].median
    measured = Measurement(workload, workload.data(cifar10), rate, results, left_out, failed)
    note(measured)
    if workload.cuda and time.monotonic() - start > 1.5 * seconds:
        measured.not_separate = "no time was left"
    elif workload.cuda:
        try:
            _time_separately(measured, timed, product, rounds, repeats)
        except Exception as failure:  # the timings so far are kept
            measured.not_separate = one_line(failure)
    return measured


_PRODUCT = "a matrix product"


def _examine_all(
    steps: Mapping[str, workloads.Step], seconds: float
) -> tuple[dict[str, Result], tuple[str, ...], dict[str, str]]:
    """Results of the variants that ran, names of those left out after ``seconds``, and errors of those that failed."""
    results, left_out, failed = dict[str, Result](), list[str](), dict[str, str]()
    start = time.monotonic()
    for name, step in steps.items():
        if results and time.monotonic() - start > seconds:
            left_out.append(name)
            continue
        try:
            results[name] = _examine(step)
        except Exception as failure:  # the other variants are measured all the same
            failed[name] = one_line(failure)
    return results, tuple(left_out), failed


def _time_separately(
    measured: Measurement,
    steps: Mapping[str, workloads.Step],
    product: MatrixProduct,
    rounds: int,
    repeats: int,
) -> None:
    """Time the host and the device, each alone, and the matrix product; then count launches."""
    results = measured.results
    for name, timing in interleave(steps, of_host, rounds=rounds).items():
        results[name].host_timing = timing
    on_device: dict[str, Step] = {_PRODUCT: product, **steps}
    calls = dict.fromkeys(on_device, 1)
    for name, step in steps.items():
        if step.variant.replays_itself or (results[name].peak_bytes or 0) > LARGEST_GRAPH:
            continue
        with suppress(CaptureError):
            on_device[name], calls[name] = captured(step, repeats), repeats
    measured.not_captured = failed_capture()
    for name, timing in interleave(on_device, of_device, rounds=rounds).items():
        timing = Timing([s / calls[name] for s in timing.seconds])
        if name == _PRODUCT:
            measured.peak_flops_per_second = product.flops / timing.median
        else:
            results[name].device_timing = timing
            results[name].device_clock = "calls" if on_device[name] is steps[name] else "graph"
    for name, step in steps.items():  # after all timings, since the profiler slows what follows
        results[name].launches = count_launches(step)


def _examine(step: workloads.Step) -> Result:
    """Everything about a variant except its speed."""
    batch = next(step.batches)
    start = time.perf_counter()
    step()
    if step.workload.cuda:
        torch.cuda.synchronize()
    first = time.perf_counter() - start
    error, limit = correctness.check(step, batch)
    variant = step.variant
    return Result(
        variant=variant,
        error=error,
        limit=limit,
        flops=flops.of_step(step, batch),
        floor_flops=flops.floor(variant, step.D, batch, step.workload),
        forward_flops=flops.of_forward(step.D, batch),
        compile_seconds=first if variant.compiled and not variant.replays_itself else None,
        peak_bytes=None if variant.replays_itself else _peak_bytes(step),
    )


def _peak_bytes(step: workloads.Step) -> int:
    step()
    step.D.zero_grad(set_to_none=True)
    return peak_bytes(step, torch.device("cuda" if step.workload.cuda else "cpu"))
