"""The host's time of a repeated call of ``dat_step`` and its ``backward()``, by part, in microseconds.

D is SNGAN-32 with ndf=8 instead of the paper's 128, and a batch is two images a side: the host does the same for each
module, parameter and launch whatever their sizes are. No compiled graph runs while it is timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.host.host_measure import StepProbe, measure_operators, measure_steps
from bench.host.host_parts import HOST_COSTS, PARTS, HostCost, microseconds
from bench.kernel.case import has_kernels
from bench.timing.interleaved import ReplayClock, Timing
from fastdat import DATConfig
from fastdat.nets import SNGANDiscriminator

CLOCK = ReplayClock()
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
NDF, BATCH = 8, 2
ROUNDS = 20
"""Of a hundred calls each."""
STEPS = {"DAT": DATConfig(), "DAT second order": DATConfig(second_order=True)}


def rounds() -> int:
    return int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS))


def probe_of(config: DATConfig) -> StepProbe:
    """The step as bench_dat_step.py takes it: in bf16 and channels_last on a GPU, in fp32 on a CPU."""
    torch.manual_seed(0)
    layout = torch.channels_last if CUDA else torch.contiguous_format
    D = SNGANDiscriminator(32, ndf=NDF).to(DEVICE)
    D.to(memory_format=layout)  # type: ignore[call-overload]  # missing from torch's annotations
    xr, xf = (torch.rand(BATCH, 3, 32, 32).to(DEVICE, memory_format=layout) for _ in range(2))
    return StepProbe(D, xr, xf, config)


@pytest.fixture(scope="module")
def steps(pytestconfig: pytest.Config) -> Iterator[dict[str, HostCost]]:
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
        probes = {name: probe_of(config) for name, config in STEPS.items()}
        costs = measure_steps(probes, DEVICE, rounds())
    pytestconfig.stash[HOST_COSTS].extend(costs)
    yield {cost.name: cost for cost in costs}
    torch.compiler.reset()


@pytest.fixture(scope="module")
def operators(pytestconfig: pytest.Config) -> HostCost:
    if not has_kernels(DEVICE):
        pytest.skip("no Triton kernels run here")
    cost = measure_operators(DEVICE, rounds())
    pytestconfig.stash[HOST_COSTS].append(cost)
    return cost


def play(benchmark: BenchmarkFixture, timing: Timing, **facts: object) -> None:
    """All calls count in ``extra_info``. pytest-benchmark gets the minimum of each hundred: its JSON stays small."""
    benchmark.extra_info.update(microseconds(timing), torch_threads=1, **facts)
    hundreds = [timing.seconds[i : i + 100] for i in range(0, len(timing.seconds), 100)]
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(Timing([min(calls) for calls in hundreds])))


@pytest.mark.benchmark(timer=CLOCK, group="host time of a step")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", list(STEPS))
def bench_step(benchmark: BenchmarkFixture, steps: dict[str, HostCost], name: str, part: str) -> None:
    """One part of a call each; "dat_step" and "backward" are all of it."""
    play(benchmark, steps[name].parts[part], step=name, part=part, ndf=NDF, batch=BATCH)


@pytest.mark.benchmark(timer=CLOCK, group="host time of an operator")
@pytest.mark.parametrize("what", ["forward", "backward"])
def bench_spectral_norm(benchmark: BenchmarkFixture, operators: HostCost, what: str) -> None:
    """The operator alone, of all weights at ndf=128, with its launches and without autograd."""
    play(benchmark, operators.parts[what], operator=operators.name, what=what)
