"""Each kernel beside its plain formula, the same formula compiled, and a copy of memory."""

from __future__ import annotations

import functools
import gc
import os
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.failures import one_line
from bench.kernel.case import Case
from bench.kernel.kernel_measure import KernelMeasurement, count_all_launches, measure
from bench.kernel.kernel_report import KERNELS
from bench.kernel.selection import all_cases
from bench.timing.interleaved import ReplayClock

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = all_cases(DEVICE)
ROUNDS, REPEATS = (20, 10) if DEVICE.type == "cuda" else (15, 3)
CLOCK = ReplayClock()
LAUNCH_SECONDS = 15
"""Time for counting launches; the cases that are not reached get no count."""
LAST_START = time.monotonic() + float(os.environ.get("FASTDAT_BENCH_SECONDS", "inf"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case and provider, in the order of the cases."""
    if "case" not in metafunc.fixturenames:
        return
    pairs = [(case, provider) for case in CASES for provider in case.provider_names()]
    ids = [f"{case.name}-{provider}" for case, provider in pairs]
    metafunc.parametrize(("case", "provider"), pairs, ids=ids)


@pytest.fixture
def measurement(request: pytest.FixtureRequest, case: Case) -> KernelMeasurement:
    """All providers of a case, measured once, in turns."""
    measured, kernels = measure_once(case), request.config.stash[KERNELS]
    if not kernels or kernels[-1] is not measured:
        kernels.append(measured)
    return measured


@functools.lru_cache(maxsize=1)  # the tests of one case follow each other
def measure_once(case: Case) -> KernelMeasurement:
    """Measure a case, after freeing the memory of the one before."""
    if time.monotonic() > LAST_START:
        pytest.skip("the time of FASTDAT_BENCH_SECONDS is up")
    torch.compiler.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        if case.memory_bytes > torch.cuda.mem_get_info()[0]:
            pytest.skip(f"needs up to {case.memory_bytes / 2**30:.0f} GiB of device memory")
    return measure(case, int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS)), REPEATS)


@pytest.mark.benchmark(timer=CLOCK)
def bench_kernel(benchmark: BenchmarkFixture, measurement: KernelMeasurement, provider: str) -> None:
    """Report one provider's rounds; fail where its results are wrong, skip where it is not there."""
    result = measurement.results[provider]
    if result.problem is not None and result.absent:
        pytest.skip(f"{provider}: {result.problem}")
    benchmark.group = measurement.case.name
    benchmark.extra_info.update(measurement.summary(provider))
    assert result.timing is not None, result.problem
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(result.timing))


def bench_launches(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    """Count the launches of each provider. This comes last, since the profiler may slow what follows."""
    if DEVICE.type != "cuda":
        pytest.skip("launches are counted on a GPU only")
    benchmark.group = "launches"

    def count() -> None:
        last_start = time.monotonic() + LAUNCH_SECONDS
        for measurement in request.config.stash[KERNELS]:
            if time.monotonic() < last_start:
                try:
                    found: object = count_all_launches(measurement)
                except Exception as failure:  # the other cases are counted all the same
                    found = one_line(failure)
                benchmark.extra_info[measurement.case.name] = found

    benchmark.pedantic(count, rounds=1)
