"""The clocks of bench/ for a GPU, read on one that is calculated: launches queue, and the host may run ahead."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bench import device_time, measure
from bench.device_time import captured, of_device, of_host
from bench.interleaved import as_called
from bench.measure import Result
from bench.workloads import REPLAYED, VARIANTS

MICRO = 1e-6


class Machine:
    """A host and a GPU with a stream, in seconds."""

    def __init__(self) -> None:
        self.host = 0.0
        self.device = 0.0
        """When the device will be done with all that it was given."""
        self.log: list[str] = []
        self.capturing: list[float] | None = None

    def launch(self, seconds: float, host: float = 0.0) -> None:
        self.host += host
        if self.capturing is not None:
            self.capturing.append(seconds)
        else:
            self.device = max(self.host, self.device) + seconds

    def synchronize(self) -> None:
        self.host = max(self.host, self.device)

    def sleep(self, cycles: int) -> None:
        self.launch(cycles / 2e9)


class Event:
    machine: Machine

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = max(self.machine.host, self.machine.device)

    def synchronize(self) -> None:
        self.machine.host = max(self.machine.host, self.at)

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


class Stream:
    def wait_stream(self, other: Stream) -> None: ...


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """In the place of torch.cuda."""
    machine = Machine()

    class Graph:
        def __init__(self) -> None:
            self.kernels: list[float] = []

        def replay(self) -> None:
            machine.launch(sum(self.kernels), host=5 * MICRO)

    @contextlib.contextmanager
    def capture(graph: Graph, pool: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        machine.log.append(f"capture {capture_error_mode}, pool {pool}")
        machine.capturing = graph.kernels
        try:
            yield
        finally:
            machine.capturing = None

    monkeypatch.setattr(Event, "machine", machine, raising=False)
    fakes = {
        "Event": Event, "Stream": Stream, "CUDAGraph": Graph, "graph": capture, "_sleep": machine.sleep,
        "synchronize": machine.synchronize, "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(), "graph_pool_handle": lambda: 7,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(time, "perf_counter", lambda: machine.host)
    monkeypatch.setattr(gc, "collect", lambda: machine.log.append("collect"))
    return machine


def step_of(machine: Machine, launches: int, host: float, device: float) -> Callable[[], None]:
    def step() -> None:
        for _ in range(launches):
            machine.launch(device * MICRO, host * MICRO)

    return step


@pytest.mark.parametrize(("host", "device", "called"), [(10.0, 2.0, 1002.0), (1.0, 20.0, 2001.0)])
def test_host_and_device_are_told_apart(machine: Machine, host: float, device: float, called: float) -> None:
    """100 launches: called once, the slower of the two decides; the clocks give each by itself."""
    step = step_of(machine, 100, host, device)
    assert as_called(torch.device("cuda"))(step, 1) == pytest.approx(called * MICRO)
    assert of_host(step, 3) == pytest.approx(100 * host * MICRO)
    assert of_device(step, 3) == pytest.approx(100 * device * MICRO)


def test_a_captured_step_is_the_device_s_alone(machine: Machine) -> None:
    step = step_of(
        machine, 2000, host=50.0, device=2.0
    )  # of 100 ms, for which the device is not kept waiting
    assert of_device(step, 1) > 40_000 * MICRO
    replay = captured(step, 3)
    assert replay is not None
    assert of_device(replay, 1) == pytest.approx(3 * 4000 * MICRO)


def test_before_a_capture_what_is_dead_is_collected(machine: Machine) -> None:
    captured(step_of(machine, 1, 1.0, 1.0), 1, pool=7)
    assert machine.log == ["collect", "capture thread_local, pool 7"]


def test_what_cannot_be_captured_is_none(machine: Machine) -> None:
    def step() -> None:
        if machine.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    assert captured(step, 2) is None


def test_launches_are_counted_after_all_timings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that replay graphs themselves, and large ones, are timed call by call; the others as graphs."""
    variants = {"plain": VARIANTS[3], "large": VARIANTS[4], "replayed": REPLAYED[1]}
    steps: dict[str, Any] = {}
    for name, variant in variants.items():
        steps[name] = type(
            "Step", (), {"variant": variant, "__call__": staticmethod(step_of(machine, 10, 30.0, 2.0))}
        )()
    results = {
        name: Result(variant, 0.0, 1.0, 1, 1, 1, peak_bytes=5 << 30 if name == "large" else 1 << 20)
        for name, variant in variants.items()
    }

    def count(step: object) -> int:
        machine.log.append("count")
        return 10

    monkeypatch.setattr(measure, "count_launches", count)
    product: Any = step_of(machine, 1, 3.0, 500.0)
    timing = measure._apart(steps, product, results, rounds=4, repeats=5)
    assert timing.median == pytest.approx(500 * MICRO)
    assert {name: result.device_clock for name, result in results.items()} == {
        "plain": "graph", "large": "calls", "replayed": "calls",
    }  # fmt: skip
    for result in results.values():
        assert result.device_timing is not None
        assert result.host_timing is not None
        assert result.device_timing.median == pytest.approx(20 * MICRO)
        assert result.host_timing.median == pytest.approx(300 * MICRO)
        assert (len(result.device_timing.seconds), result.launches) == (4, 10)
    assert machine.log == ["collect", "capture thread_local, pool 7", *["count"] * 3]


def test_the_device_waits_long_enough() -> None:
    """For the host to ask for the slowest step, 20 ms, at the fastest clock of a GPU."""
    assert device_time.SLEEP_CYCLES / 2.0e9 >= 0.02
