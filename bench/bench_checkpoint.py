"""What a checkpoint's digest costs when it is written and read: that of SNGAN-32 with both Adams, in full width.

``torch`` is the same content by ``torch.save`` and ``torch.load`` alone. Files are in the operating system's memory
when they are read, and written to a disk with fsync.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastdat.training import build_nets, checkpoint, preset
from tests.training.checkpoint_states import state_of


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    return state_of(*build_nets(preset("sngan-dat-cifar10")))


def _torch_save(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _torch_load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.benchmark(group="write a checkpoint")
@pytest.mark.parametrize("by", ["torch", "fastdat"])
def bench_save(benchmark: BenchmarkFixture, state: dict[str, Any], tmp_path: Path, by: str) -> None:
    save = checkpoint.save if by == "fastdat" else _torch_save
    benchmark(save, tmp_path / "latest.pt", state)
    benchmark.extra_info["mebibytes"] = round((tmp_path / "latest.pt").stat().st_size / 2**20, 1)


@pytest.mark.benchmark(group="read a checkpoint")
@pytest.mark.parametrize("by", ["torch", "fastdat"])
def bench_load(benchmark: BenchmarkFixture, state: dict[str, Any], tmp_path: Path, by: str) -> None:
    checkpoint.save(tmp_path / "latest.pt", state)
    benchmark(checkpoint.load if by == "fastdat" else _torch_load, tmp_path / "latest.pt")
    benchmark.extra_info["mebibytes"] = round((tmp_path / "latest.pt").stat().st_size / 2**20, 1)
