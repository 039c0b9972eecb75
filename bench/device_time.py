"""What a step costs a GPU, and what it costs the host to ask for it: two clocks that do not mix the two.

A step as a program calls it takes as long as the slower of the two. `of_host` ends when the host has asked for the
step, `of_device` begins when the device has all that was asked for.
"""

from __future__ import annotations

import gc
import time
import warnings
from typing import Any

import torch

from bench.interleaved import Step

SLEEP_CYCLES = 100_000_000
"""For which the device is kept waiting while the host asks for a step: 50 ms at 2 GHz."""


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
    """Seconds the device works on a step that waits for it as a whole (a `Clock`).

    For a step of more than about a thousand launches give this its graph (`captured`): the host would come too late.
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


def captured(step: Step, calls: int, pool: Any = None) -> Step | None:
    """`calls` calls as one CUDA graph; None where they cannot be captured.

    Args:
        step: called once before, uncaptured; it must not wait for the device.
        calls: how many.
        pool: of `torch.cuda.graph_pool_handle`, shared by graphs that are never replayed at once.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    gc.collect()  # a tensor that is freed while a graph is captured may end the capture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about autograd on two streams: nothing is added up here
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        try:
            # Other threads of the process, the compiler's say, may do as they like meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                for _ in range(calls):
                    step()
        except RuntimeError:
            torch.cuda.synchronize()
            return None
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
