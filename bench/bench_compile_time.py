"""The time from a process's start to the end of its first step of SNGAN-32, with an empty and a filled cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.compile_time.compile_parts import FIRST_STEPS, FirstStep, first_step_of
from bench.timing.interleaved import ReplayClock, Timing

CLOCK = ReplayClock()
REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_S = 900


def run(name: str, cache: str, folder: Path) -> FirstStep:
    """The first step of a new process whose compile caches are in ``folder``."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    command = [sys.executable, "-m", "bench.compile_time.first_step", name]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return first_step_of(name, cache, done.stdout)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) for name in ("SNGAN", "DAT")}


@pytest.mark.benchmark(timer=CLOCK, group="first step of a process")
@pytest.mark.parametrize(
    "cache", ["cold", "warm"]
)  # in this order: the second process finds the first one's files
@pytest.mark.parametrize("name", ["SNGAN", "DAT"])
def bench_first_step(
    benchmark: BenchmarkFixture, pytestconfig: pytest.Config, folders: dict[str, Path], name: str, cache: str
) -> None:
    """One process each; `extra_info` has the seconds of each part."""
    folder = folders[name]
    if cache == "warm" and not any(folder.iterdir()):
        pytest.skip("the cold process did not run")
    step = run(name, cache, folder)
    pytestconfig.stash[FIRST_STEPS].append(step)
    benchmark.extra_info.update(step.summary(), step=name, cache=cache)
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(Timing([step.total])))
