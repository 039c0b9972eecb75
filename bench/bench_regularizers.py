"""One discriminator step at 32 pixels with regularizers: as public code writes it in eager PyTorch, and by fastdat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.step.regularized_steps import REGULARIZED
from bench.step.step_measure import Measurement, measure
from bench.step.step_report import MEASUREMENTS
from bench.step.workloads import Workload
from bench.timing.interleaved import ReplayClock

if torch.cuda.is_available():
    WORKLOAD = Workload(64, torch.device("cuda"), torch.bfloat16)
    ROUNDS, REPEATS = 30, 5
else:
    WORKLOAD = Workload(16, torch.device("cpu"))
    ROUNDS, REPEATS = 15, 1

CLOCK = ReplayClock()


@pytest.fixture(scope="module")
def measurement(request: pytest.FixtureRequest, cifar10_or_none: Path | None) -> Measurement:
    """All variants, measured in turns."""
    torch.manual_seed(0)
    rounds = int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS))
    seconds = float(os.environ.get("FASTDAT_BENCH_SECONDS", "inf"))
    found = measure(WORKLOAD, rounds, REPEATS, cifar10_or_none, seconds, variants=REGULARIZED)
    request.config.stash[MEASUREMENTS].append(found)
    torch.compiler.reset()
    return found


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("variant", [variant.name for variant in REGULARIZED])
def bench_regularizers(benchmark: BenchmarkFixture, measurement: Measurement, variant: str) -> None:
    """Report one variant's rounds; fail where its gradients are wrong."""
    if variant in measurement.left_out:
        pytest.skip("the time of FASTDAT_BENCH_SECONDS was up")
    if variant in measurement.failed:
        pytest.fail(measurement.failed[variant])
    result = measurement.results[variant]
    benchmark.group = f"{measurement.workload.name}-regularizers"
    benchmark.extra_info.update(measurement.summary(variant))
    assert result.timing is not None, (
        f"gradients off by {result.error:.2g}, where {result.limit:.2g} is allowed"
    )
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(result.timing))
