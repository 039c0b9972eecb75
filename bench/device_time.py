"""What a step costs a GPU, and what it costs the host to ask for it: two clocks that do not mix the two.

A step as a program calls it takes as long as the slower of the two. `of_host` ends when the host has asked for the
step, `of_device` begins when the device has all that was asked for.
"""

from __future__ import annotations

import functools
import gc
import time
import warnings
from contextlib import suppress

import torch

from bench.interleaved import Step

SLEEP_CYCLES = 100_000_000
"""For which the device is kept busy while the host asks for a step: 50 ms at 2 GHz."""


def of_host(step: Step, repeats: int) -> float:
    """Seconds until the host has asked for a step (a `Clock`): Python, checks and launches.

    The device is idle when it begins. A GPU takes about a thousand launches ahead: of a step that has more and keeps
    the device busy for longer than the host, the host waits, and this is the device's time again.
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
    """Seconds the device works on a step (a `Clock`): the host queues all of it while the device is busy otherwise.

    For a step of more than about a thousand launches give this its graph (`captured`): the queue holds no more.
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
    """A step could not be captured as a graph, or one before it could not."""


_FAILED: list[str] = []


def failed_capture() -> str | None:
    """Why no step is captured any more in this process: one that failed leaves the device's allocator and random
    number generator as they were within it, for whichever step comes next."""
    return _FAILED[0] if _FAILED else None


@functools.cache
def _capture_stream() -> torch.cuda.Stream:
    """One for all captures: the allocator and cuBLAS keep memory for each stream."""
    return torch.cuda.Stream()


def captured(step: Step, calls: int) -> Step:
    """`calls` calls as one CUDA graph.

    Args:
        step: called once before, uncaptured; it must not wait for the device.
        calls: how many.

    Raises:
        CaptureError: they cannot be captured, or an earlier step could not.
    """
    if _FAILED:
        raise CaptureError(_FAILED[0])
    graph, before, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), _capture_stream()
    gc.collect()  # a tensor that is freed while a graph is captured may end the capture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about autograd on two streams: nothing is added up here
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            step()
        before.wait_stream(stream)
        torch.cuda.synchronize()
        try:
            # Other threads of the process, the compiler's say, may do as they like meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(calls):
                    step()
        except RuntimeError as error:
            # Where the end of the capture fails, torch.cuda.graph leaves its own stream the current one.
            torch.cuda.set_stream(before)
            with suppress(RuntimeError):
                torch.cuda.synchronize()
            _FAILED.append(str(error).strip().partition("\n")[0])
            raise CaptureError(_FAILED[0]) from error
    replay: Step = graph.replay
    return replay


def count_launches(step: Step) -> int | None:
    """Kernels, copies and fills on the device in one call; None where the profiler sees none.

    The profiler stays attached to the device: capture and time all that is to be captured and timed before.
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
