"""The kernels against the plain formula, against the same compiled, and against a copy of memory."""

from __future__ import annotations

import functools
import gc
import os
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.convolution_cases import convolution_cases
from bench.failures import told
from bench.interleaved import ReplayClock
from bench.kernel_measure import KernelMeasurement, count_all_launches, measure
from bench.kernel_report import KERNELS
from bench.kernel_workloads import FASTDAT, MOST_WANTED, Case, cases

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = cases(DEVICE)
if DEVICE.type == "cuda":
    CASES[MOST_WANTED:MOST_WANTED] = convolution_cases(DEVICE)
ROUNDS, REPEATS = (20, 10) if DEVICE.type == "cuda" else (15, 3)
CLOCK = ReplayClock()
LAUNCH_SECONDS = 15
"""For counting launches; the cases that come later have none."""
LAST_START = time.monotonic() + float(os.environ.get("FASTDAT_BENCH_SECONDS", "inf"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a case and provider, in the order of the cases."""
    if "case" not in metafunc.fixturenames:
        return
    pairs = [(case, provider) for case in CASES for provider in case.provider_names()]
    ids = [f"{case.name}-{provider}" for case, provider in pairs]
    metafunc.parametrize(("case", "provider"), pairs, ids=ids)


@pytest.fixture
def measurement(request: pytest.FixtureRequest, case: Case) -> KernelMeasurement:
    """All providers of a case, measured in turns, once."""
    measured, kernels = measure_once(case), request.config.stash[KERNELS]
    if not kernels or kernels[-1] is not measured:
        kernels.append(measured)
    return measured


@functools.lru_cache(maxsize=1)  # the tests of a case come one after another
def measure_once(case: Case) -> KernelMeasurement:
    """Measure a case, with nothing left of the one before."""
    if time.monotonic() > LAST_START:
        pytest.skip("FASTDAT_BENCH_SECONDS are over")
    torch.compiler.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        if case.memory_bytes > torch.cuda.mem_get_info()[0]:
            pytest.skip(f"needs up to {case.memory_bytes / 2**30:.0f} GiB of device memory")
    return measure(case, int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS)), REPEATS)


@pytest.mark.benchmark(timer=CLOCK)
def bench_kernel(benchmark: BenchmarkFixture, measurement: KernelMeasurement, provider: str) -> None:
    """Report one provider's rounds; fail where fastdat's result is not right, skip where another's is not."""
    result = measurement.results[provider]
    if result.problem is not None and (result.absent or provider != FASTDAT):
        pytest.skip(f"{provider}: {result.problem}")
    benchmark.group = measurement.case.name
    benchmark.extra_info.update(measurement.summary(provider))
    assert result.timing is not None, result.problem
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(result.timing))


def bench_launches(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    """Count the launches of each provider; last, since the profiler that counts them may slow what follows."""
    if DEVICE.type != "cuda":
        pytest.skip("launches are those on a GPU")
    benchmark.group = "launches"

    def count() -> None:
        last_start = time.monotonic() + LAUNCH_SECONDS
        for measurement in request.config.stash[KERNELS]:
            if time.monotonic() < last_start:
                try:
                    found: object = count_all_launches(measurement)
                except Exception as failure:  # those of the other cases are wanted all the same
                    found = told(failure)
                benchmark.extra_info[measurement.case.name] = found

    benchmark.pedantic(count, rounds=1)
