"""Memory of a D step against its batch, whole and in parts: the peak beside what is there before the step."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import fastdat
from fastdat import DATConfig
from fastdat.experiments.step_counters import peak_bytes
from fastdat.nets import SNGANDiscriminator

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCHES = (256, 512, 1024) if CUDA else (16, 32, 64)
PART = BATCHES[0] // 2
WIDTH = None if CUDA else 32


@pytest.mark.benchmark(group="memory of a D step")
@pytest.mark.parametrize("microbatch", [None, PART], ids=["whole", "parts"])
@pytest.mark.parametrize("second_order", [False, True], ids=["first order", "second order"])
def bench_step_memory(benchmark: BenchmarkFixture, second_order: bool, microbatch: int | None) -> None:
    """SNGAN's D at 32 pixels, not compiled; the time is that of the largest batch."""
    D = SNGANDiscriminator(32, WIDTH).to(DEVICE)
    config = DATConfig(second_order=second_order)
    peaks = {}
    for batch in BATCHES:
        xr, xf = (torch.rand(batch, 3, 32, 32, device=DEVICE) * 2 - 1 for _ in range(2))

        def step(xr: torch.Tensor = xr, xf: torch.Tensor = xf) -> None:
            fastdat.dat_step(D, xr, xf, config=config, compile=False, microbatch=microbatch).backward()
            D.zero_grad()
            if CUDA:
                torch.cuda.synchronize()

        step()
        peaks[batch] = peak_bytes(step, DEVICE)
    growth = (peaks[BATCHES[-1]] - peaks[BATCHES[0]]) / (BATCHES[-1] - BATCHES[0])
    benchmark.extra_info.update(
        peak_bytes=peaks, microbatch=microbatch, images_a_sample=growth / (4 * 3 * 32**2)
    )
    benchmark.pedantic(step, rounds=1)
