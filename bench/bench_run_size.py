"""Time and memory of whole iterations for several nets and batch sizes: what `fastdat plan` is fitted to."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.run_size.cases import ON_CPU, ON_GPU, Case
from bench.timing.interleaved import ReplayClock, Timing

CLOCK = ReplayClock()
CUDA = torch.cuda.is_available()
CASES = ON_GPU if CUDA else ON_CPU
TOGETHER = CUDA and torch.cuda.mem_get_info()[1] >= 100 * 2**30
"""Whether all cases are ready at once. Together they hold 54 GiB of device memory, and their contexts some more."""
READY_WITHIN = float(os.environ.get("FASTDAT_READY_SECONDS", 200))
"""Seconds for the compilations, which run side by side on a large GPU."""


class Process:
    """A worker, from its start to its answer."""

    def __init__(self, case: Case, errors: Path) -> None:
        given = {"preset": case.preset, "batch_size": case.batch, **case.changes}
        environment = dict(os.environ)
        if case != CASES[0]:
            environment.pop("FASTDAT_LAUNCHES", None)
        self._errors = errors
        with errors.open("w") as written:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.run_size.worker", json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
                env=environment,
            )

    def ready(self, until: float) -> bool:
        """Whether it said so by then."""
        return self._line(until) == "ready"

    def measured(self) -> dict[str, Any] | str:
        """Let it run alone; what it measured, or the end of what it wrote to its standard error."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.close()
        line = self._line(time.monotonic() + 60)
        self.end()
        return json.loads(line) if line else self.wrong()

    def wrong(self) -> str:
        self.end()
        return f"exit status {self._process.returncode}: {self._errors.read_text()[-3000:]}"

    def end(self) -> None:
        """Wait for its end and close its pipes; it is killed if its end does not come."""
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._process:  # closes both pipes, and waits
            pass

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def _line(self, until: float) -> str:
        """Its next line, or nothing if there is none by then."""
        assert self._process.stdout is not None
        found, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
        return self._process.stdout.readline().strip() if found else ""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any] | str]:
    """What each case measured, or why it could not. One after another from the start, unless all fit on the device."""
    found: dict[str, dict[str, Any] | str] = {}
    waiting = list(CASES)
    with tempfile.TemporaryDirectory() as folder:
        while waiting:
            now, waiting = (waiting, []) if TOGETHER else (waiting[:1], waiting[1:])
            processes = {case.name: Process(case, Path(folder, f"{i}.txt")) for i, case in enumerate(now)}
            until = time.monotonic() + READY_WITHIN
            ready = {name: process.ready(until) for name, process in processes.items()}
            for name, process in processes.items():
                if not ready[name]:
                    process.kill()
                    found[name] = f"not ready after {READY_WITHIN:.0f} s: {process.wrong()}"
            for name, process in processes.items():
                if ready[name]:
                    found[name] = process.measured()
    return found


@pytest.mark.benchmark(timer=CLOCK, group="one iteration of a training")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def bench_run_size(
    benchmark: BenchmarkFixture, measured: dict[str, dict[str, Any] | str], case: Case
) -> None:
    """Mean of the iterations that follow each other at once, in a process of its own."""
    found = measured[case.name]
    if isinstance(found, str):
        pytest.fail(found)
    benchmark.extra_info.update(found)
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(Timing([found["seconds"]])))
