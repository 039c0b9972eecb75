"""Clocks that time the GPU alone and the host alone.

A step that a program calls takes as long as the slower of the two. `of_host` stops when the host has launched the whole
step; `of_device` starts when the whole step is in the device's queue.
"""

from __future__ import annotations

import functools
import gc
import time
import warnings
from contextlib import suppress

import torch

from bench.timing.interleaved import Step

SLEEP_CYCLES = 100_000_000
"""Cycles for which the device is kept busy while the host launches a step: 50 ms at 2 GHz."""


def of_host(step: Step, repeats: int) -> float:
    """Seconds until the host has launched a step (a `Clock`): Python, checks and launches.

    The device is idle at the start. Its queue holds about a thousand launches: in a step with more of them, on which
    the device works longer than the host, the host has to wait, and this is the device's time.
    """
    total = 0.0
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        total += time.perf_counter() - start
    torch.cuda.synchronize()
    return total / repeats


def of_device(step: Step, repeats: int) -> float:
    """Seconds that the device works on a step (a `Clock`): the host queues all of it while the device is kept busy.

    The queue holds about a thousand launches. For a step with more of them, pass its CUDA graph (`captured`).
    """
    total = 0.0
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        torch.cuda._sleep(SLEEP_CYCLES)
        start.record()
        step()
        end.record()
        end.synchronize()
        total += start.elapsed_time(end) / 1e3
    return total / repeats


class CaptureError(RuntimeError):
    """A step could not be captured as a CUDA graph, or an earlier one could not."""


_FAILED: list[str] = []


def failed_capture() -> str | None:
    """Why no step is captured any more in this process; None as long as no capture has failed.

    A capture that fails leaves the device's allocator and random number generator in the state they had inside it.
    """
    return _FAILED[0] if _FAILED else None


@functools.cache
def _capture_stream() -> torch.cuda.Stream:
    """One stream for all captures: the allocator and cuBLAS keep memory for each stream."""
    return torch.cuda.Stream()


def captured(step: Step, calls: int) -> Step:
    """A step that replays ``calls`` calls of ``step`` as one CUDA graph.

    Args:
        step: called once before the capture; it must not wait for the device.
        calls: calls in the graph.

    Raises:
        CaptureError: the step cannot be captured, or an earlier one could not.
    """
    if _FAILED:
        raise CaptureError(_FAILED[0])
    graph, before, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), _capture_stream()
    gc.collect()  # a tensor that is freed during a capture may end it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about autograd on two streams: no gradients are accumulated here
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            step()
        before.wait_stream(stream)
        torch.cuda.synchronize()
        try:
            # Other threads, such as the compiler's, may call CUDA functions meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(calls):
                    step()
        except RuntimeError as error:
            # If the end of the capture fails, torch.cuda.graph does not restore the current stream.
            torch.cuda.set_stream(before)
            with suppress(RuntimeError):
                torch.cuda.synchronize()
            _FAILED.append(str(error).strip().partition("\n")[0])
            raise CaptureError(_FAILED[0]) from error
    replay: Step = graph.replay
    return replay


def count_launches(step: Step) -> int | None:
    """Kernels, copies and fills on the device in one call; None where the profiler sees none.

    The profiler stays attached to the device, so make all captures and timings before.
    """
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the profiler's own cycles
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            step()
            torch.cuda.synchronize()
    count = sum(event.device_type.name == "CUDA" for event in profiler.events() or ())
    return count or None
