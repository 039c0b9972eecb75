"""One discriminator step at 32 pixels, of SNGAN's D and of a D of plain torch: in eager PyTorch, and by fastdat."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.gpu_check import records
from bench.step.step_measure import Measurement, measure
from bench.step.step_report import MEASUREMENTS
from bench.step.workloads import Workload, variants_of
from bench.timing.interleaved import ReplayClock

if torch.cuda.is_available():
    WORKLOADS = [Workload(batch, torch.device("cuda"), torch.bfloat16) for batch in (64, 512, 2048)]
    ROUNDS, REPEATS = 30, 5
else:
    WORKLOADS = [Workload(16, torch.device("cpu")), Workload(16, torch.device("cpu"), net="plain")]
    ROUNDS, REPEATS = 15, 1

CLOCK = ReplayClock()

# Set before the first convolution, since cuDNN keeps the algorithm that it has chosen for a shape.
torch.backends.cudnn.benchmark = os.environ.get("FASTDAT_CUDNN_BENCHMARK") == "1"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each workload and variant."""
    pairs = [(workload, variant.name) for workload in WORKLOADS for variant in variants_of(workload)]
    ids = [f"{workload.name}-{variant}" for workload, variant in pairs]
    metafunc.parametrize(("workload", "variant"), pairs, ids=ids)


@pytest.fixture(scope="module")
def measurement_of(
    request: pytest.FixtureRequest, cifar10_or_none: Path | None
) -> Callable[[Workload], Measurement]:
    """All variants of a workload, measured in turns when the first of them is asked for."""
    rounds = int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS))
    seconds = float(os.environ.get("FASTDAT_BENCH_SECONDS", "inf"))

    @cache
    def measured(workload: Workload) -> Measurement:
        torch.manual_seed(0)
        found = measure(workload, rounds, REPEATS, cifar10_or_none, seconds, note=_note)
        request.config.stash[MEASUREMENTS].append(found)
        torch.compiler.reset()
        return found

    return measured


def _note(measured: Measurement) -> None:
    """Record what is timed so far for gpu-check, in case the part is stopped before its end."""
    for name, result in measured.results.items():
        if result.timing is not None:
            records.note(interim={"group": measured.workload.name, "extra_info": measured.summary(name)})


@pytest.mark.benchmark(timer=CLOCK)
def bench_step(
    benchmark: BenchmarkFixture,
    measurement_of: Callable[[Workload], Measurement],
    workload: Workload,
    variant: str,
) -> None:
    """Report one variant's rounds; fail where its gradients are wrong."""
    measurement = measurement_of(workload)
    if variant in measurement.left_out:
        pytest.skip("the time of FASTDAT_BENCH_SECONDS was up")
    if variant in measurement.failed:
        pytest.fail(measurement.failed[variant])
    result = measurement.results[variant]
    benchmark.group = measurement.workload.name
    benchmark.extra_info.update(measurement.summary(variant))
    assert result.timing is not None, (
        f"gradients off by {result.error:.2g}, where {result.limit:.2g} is allowed"
    )
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(result.timing))
