"""Memory that a call needs on a CPU, as torch's profiler sees its allocator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_bytes_on_cpu(call: Callable[[], object]) -> int:
    """The most bytes that tensors made during ``call`` hold at once.

    What a library takes for itself without torch's allocator, such as the scratch memory of a convolution, is not seen.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    alive = peak = 0
    for change in sorted(changes, key=lambda event: float(event["ts"])):
        alive += change["args"]["Bytes"]  # the profiler leaves out what was there before
        peak = max(peak, alive)
    return peak
