"""The clocks for a GPU, on a simulated one: launches are queued, and the host may run ahead of the device."""

from __future__ import annotations

import contextlib
import functools
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bench.step import step_measure
from bench.step.step_measure import Measurement, Result
from bench.step.workloads import REPLAYED, VARIANTS, Workload
from bench.timing import device_time
from bench.timing.device_time import CaptureError, captured, of_device, of_host
from bench.timing.interleaved import as_called

MICRO = 1e-6
WORKLOAD = Workload(64, torch.device("cuda"), torch.bfloat16)


class Machine:
    """A host and a GPU with one stream; times are in seconds."""

    def __init__(self) -> None:
        self.host = 0.0
        self.device = 0.0
        """Time at which the device will have finished everything in its queue."""
        self.log: list[str] = []
        self.capturing: list[float] | None = None
        self.stream: Stream | None = None
        """The current stream."""

    def launch(self, seconds: float, host: float = 0.0) -> None:
        self.host += host
        if self.capturing is not None:
            self.capturing.append(seconds)
        else:
            self.device = max(self.host, self.device) + seconds

    def synchronize(self) -> None:
        self.host = max(self.host, self.device)

    def set_stream(self, stream: Stream) -> None:
        self.stream = stream

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
    """A simulated machine in place of torch.cuda."""
    machine = Machine()

    class Graph:
        def __init__(self) -> None:
            self.kernels: list[float] = []

        def replay(self) -> None:
            machine.launch(sum(self.kernels), host=5 * MICRO)

    @contextlib.contextmanager
    def capture(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        machine.log.append(f"capture {capture_error_mode}")
        machine.capturing, machine.stream = graph.kernels, stream
        try:
            yield
        finally:
            machine.capturing = None

    monkeypatch.setattr(Event, "machine", machine, raising=False)
    fakes = {
        "Event": Event, "Stream": Stream, "CUDAGraph": Graph, "graph": capture, "_sleep": machine.sleep,
        "synchronize": machine.synchronize, "current_stream": lambda: machine.stream or Stream(),
        "stream": lambda stream: contextlib.nullcontext(), "set_stream": machine.set_stream,
    }  # fmt: skip
    monkeypatch.setattr(device_time, "_FAILED", [])
    monkeypatch.setattr(device_time, "_capture_stream", functools.cache(Stream))
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
def test_host_and_device_are_timed_separately(
    machine: Machine, host: float, device: float, called: float
) -> None:
    """100 launches: in a call the slower of host and device decides; the two clocks give each alone."""
    step = step_of(machine, 100, host, device)
    assert as_called(torch.device("cuda"))(step, 1) == pytest.approx(called * MICRO)
    assert of_host(step, 3) == pytest.approx(100 * host * MICRO)
    assert of_device(step, 3) == pytest.approx(100 * device * MICRO)


def test_a_captured_step_takes_the_time_of_the_device_alone(machine: Machine) -> None:
    step = step_of(
        machine, 2000, host=50.0, device=2.0
    )  # 100 ms of the host, longer than the device is kept busy
    assert of_device(step, 1) > 40_000 * MICRO
    replay = captured(step, 3)
    assert of_device(replay, 1) == pytest.approx(3 * 4000 * MICRO)


def test_garbage_is_collected_before_a_capture(machine: Machine) -> None:
    captured(step_of(machine, 1, 1.0, 1.0), 1)
    assert machine.log == ["collect", "capture thread_local"]


def test_no_step_is_captured_after_a_failed_capture(machine: Machine) -> None:
    """The stream is restored, but the allocator and the random number generator may not be."""

    def step() -> None:
        if machine.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    before = Stream()
    machine.set_stream(before)
    assert device_time.failed_capture() is None
    with pytest.raises(CaptureError, match=r"^operation not permitted when stream is capturing$"):
        captured(step, 2)
    assert machine.stream is before
    assert device_time.failed_capture() == "operation not permitted when stream is capturing"
    with pytest.raises(CaptureError, match=r"^operation not permitted"):
        captured(step_of(machine, 1, 1.0, 1.0), 1)
    assert machine.log == ["collect", "capture thread_local"]


def test_launches_are_counted_after_all_timings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that replay graphs themselves, and large ones, are timed call by call; the others are timed as graphs."""
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

    monkeypatch.setattr(step_measure, "count_launches", count)
    product: Any = step_of(machine, 1, 3.0, 500.0)
    product.flops = 10**9
    measured = Measurement(WORKLOAD, "noise", 1.0, results)
    step_measure._time_separately(measured, steps, product, rounds=4, repeats=5)
    assert measured.peak_flops_per_second == pytest.approx(1e9 / (500 * MICRO))
    assert measured.not_captured is None
    assert {name: result.device_clock for name, result in results.items()} == {
        "plain": "graph", "large": "calls", "replayed": "calls",
    }  # fmt: skip
    for result in results.values():
        assert result.device_timing is not None
        assert result.host_timing is not None
        assert result.device_timing.median == pytest.approx(20 * MICRO)
        assert result.host_timing.median == pytest.approx(300 * MICRO)
        assert (len(result.device_timing.seconds), result.launches) == (4, 10)
    assert machine.log == ["collect", "capture thread_local", *["count"] * 3]


def test_steps_that_cannot_be_captured_are_timed_call_by_call(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_time, "_FAILED", ["no graphs today"])
    monkeypatch.setattr(step_measure, "count_launches", lambda step: None)
    step: Any = type(
        "Step", (), {"variant": VARIANTS[3], "__call__": staticmethod(step_of(machine, 10, 30.0, 2.0))}
    )()
    result = Result(VARIANTS[3], 0.0, 1.0, 1, 1, 1, peak_bytes=1)
    measured, product = (
        Measurement(WORKLOAD, "noise", 1.0, {"plain": result}),
        step_of(machine, 1, 3.0, 500.0),
    )
    product.flops = 1  # type: ignore[attr-defined]
    step_measure._time_separately(measured, {"plain": step}, product, rounds=2, repeats=5)  # type: ignore[arg-type]
    assert (result.device_clock, measured.not_captured) == ("calls", "no graphs today")
    assert result.device_timing is not None
    assert result.device_timing.median == pytest.approx(20 * MICRO)
