"""Measures every variant of a workload: first what it computes, then how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import correctness, flops, workloads
from bench.interleaved import MatrixProduct, Step, Timing, interleave
from bench.workloads import Variant, Workload


@dataclass
class Result:
    """What is known of one variant."""

    variant: Variant
    error: float
    limit: float
    flops: int
    floor_flops: int
    forward_flops: int
    compile_seconds: float | None = None
    """Time of the first call, with nothing compiled before."""
    peak_bytes: int | None = None
    """Device memory that the step needs beyond parameters and batches."""
    timing: Timing | None = None
    """None where the gradients are wrong: such a variant is not timed."""

    @property
    def correct(self) -> bool:
        return self.error <= self.limit

    @property
    def flops_in_forwards(self) -> float:
        return self.flops / self.forward_flops


@dataclass
class Measurement:
    """All variants of one workload, measured together."""

    workload: Workload
    data: str
    peak_flops_per_second: float
    """Of a matrix product in the workload's precision."""
    results: dict[str, Result]

    def summary(self, name: str) -> dict[str, Any]:
        """Everything known of a variant, for the JSON."""
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
        }
        if result.timing is not None:
            rate = result.flops / result.timing.median
            facts |= result.timing.summary()
            facts |= {
                "tflops": rate / 1e12,
                "percent_of_matmul_peak": 100 * rate / self.peak_flops_per_second,
            }
        return facts


def measure(workload: Workload, rounds: int, repeats: int, cifar10: Path | None) -> Measurement:
    """Check every variant, then time in turns those that compute the right gradients, and a matrix product.

    Args:
        workload: what to measure.
        rounds, repeats: as of `interleave`.
        cifar10: the folder of the real images; None for noise.
    """
    steps = {step.variant.name: step for step in workloads.steps(workload, cifar10)}
    results = {name: _examine(step) for name, step in steps.items()}
    product = MatrixProduct(workload.device, workload.amp or torch.float32)
    timed: dict[str, Step] = {name: step for name, step in steps.items() if results[name].correct}
    timings = interleave({**timed, "product": product}, cuda=workload.cuda, rounds=rounds, repeats=repeats)
    for name in timed:
        results[name].timing = timings[name]
    rate = product.flops / timings["product"].median
    return Measurement(workload, workload.data(cifar10), rate, results)


def _examine(step: workloads.Step) -> Result:
    """Everything about a variant but its speed."""
    batch = next(step.batches)
    start = time.perf_counter()
    step()
    if step.workload.cuda:
        torch.cuda.synchronize()
    first = time.perf_counter() - start
    error, limit = correctness.check(step, batch)
    return Result(
        variant=step.variant,
        error=error,
        limit=limit,
        flops=flops.of_step(step, batch),
        floor_flops=flops.floor(step.variant, step.D, batch, step.workload),
        forward_flops=flops.of_forward(step.D, batch),
        compile_seconds=first if step.variant.compiled else None,
        peak_bytes=_peak_bytes(step) if step.workload.cuda else None,
    )


def _peak_bytes(step: workloads.Step) -> int:
    step()
    step.D.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
