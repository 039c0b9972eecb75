"""What a step costs while it runs: its FLOPs, its memory, and its time beside that of others."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Key = TypeVar("Key")
Step = TypeVar("Step")


class CountFlops(TorchDispatchMode):
    """Adds up the FLOPs of matrix products and convolutions, by torch's own formulas.

    `torch.utils.flop_counter.FlopCounterMode` does not work here: it attributes FLOPs to modules with hooks that break
    `torch.autograd.grad` inside the step.
    """

    total: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that ``call`` needs on ``device`` beside what is there; a first call of it comes before."""
    if device.type == "cpu":
        return peak_bytes_on_cpu(call)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak_bytes_on_cpu(call: Callable[[], object]) -> int:
    """The most bytes that tensors made during ``call`` hold at once.

    What a library takes for itself without torch's allocator, such as the scratch memory of a convolution, is not seen.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler prints two lines a call
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


def seconds_in_turns(
    steps: Mapping[Key, Step], clock: Callable[[Step], float], *, rounds: int, warmup: int
) -> dict[Key, list[float]]:
    """Seconds of each step by ``clock``, one number a round.

    A round takes every step once, in a new random order, so that noise of the machine affects all of them alike;
    ``warmup`` rounds before them are not counted.
    """
    order = list(steps)
    shuffle = random.Random(0).shuffle
    seconds: dict[Key, list[float]] = {name: [] for name in steps}
    for i in range(warmup + rounds):
        shuffle(order)
        for name in order:
            elapsed = clock(steps[name])
            if i >= warmup:
                seconds[name].append(elapsed)
    return seconds
