"""One training in a process of its own: it compiles, waits for a line, and is then timed.

    python -m bench.run_size.worker '{"preset": "sngan-dat-cifar10", "batch_size": 64}'

It writes ``ready``, and after a line on its standard input a JSON object. So several can compile side by side, while
they are timed one after another.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fastdat.data import ImageSet
from fastdat.training import TrainConfig, Trainer, build_trainer, preset
from fastdat.training.display import Lines
from fastdat.training.measured_sizes import image_bytes
from fastdat.util.provenance import machine_info, versions

CUDA = torch.cuda.is_available()
WARM_UP = 6 if CUDA else 2
"""Iterations before those that count; on a GPU the fourth one captures a graph."""
SECONDS = 3.0 if CUDA else 10.0
"""About as long as the iterations that count may take."""
QUIET: dict[str, Any] = {
    "eval.every": None,
    "logger": "none",
    "sample_every": 10**9,
    "checkpoints.every": 10**9,
    "log_every": 10**9,
    "steps": 10**6,
    # By itself the trainer decides it by the free memory, which the other processes share.
    "fakes_at_once": False,
}


def images_for(config: TrainConfig) -> ImageSet:
    """Noise, enough for two batches."""
    count = image_bytes(config) // (3 * config.resolution**2)
    shape = (count, 3, config.resolution, config.resolution)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8)
    return ImageSet("noise", noise, torch.zeros(count, dtype=torch.int64), ("none",))


def synchronise() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(trainer: Trainer, first: int) -> tuple[float, int]:
    """Seconds of an iteration, the mean over iterations that follow each other at once, and how many."""
    synchronise()
    begin = time.perf_counter()
    trainer.iteration.run(first)
    synchronise()
    count = max(2, min(100, round(SECONDS / (time.perf_counter() - begin))))
    begin = time.perf_counter()
    for step in range(first + 1, first + 1 + count):
        trainer.iteration.run(step)
    synchronise()
    return (time.perf_counter() - begin) / count, count


def memory() -> dict[str, int]:
    """Bytes: of the GPU's memory that torch's allocator took and gave out at most; on a CPU, of the process."""
    if not CUDA:
        return {"peak_process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "device_bytes": torch.cuda.get_device_properties(0).total_memory,
    }


def launched(trainer: Trainer, first: int, path: Path, iterations: int = 3) -> None:
    """Write the time on the device of everything that an iteration launches."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for step in range(first, first + iterations):
            trainer.iteration.run(step)
        synchronise()
    rows = [
        {
            "name": event.key,
            "launches": event.count / iterations,
            "us": event.self_device_time_total / iterations,
        }
        for event in profiler.key_averages()
        if event.self_device_time_total > 0
    ]
    path.write_text(json.dumps(sorted(rows, key=lambda row: -row["us"]), indent=1) + "\n")


def main() -> int:
    given: dict[str, Any] = json.loads(sys.argv[1])
    config = preset(given.pop("preset")).replace(QUIET | given)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, images_for(config), Path(folder, "run"), display=Lines(io.StringIO()))
        trainer._begin()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        for step in range(WARM_UP):
            trainer.iteration.run(step)
        synchronise()
        print("ready", flush=True)
        if not sys.stdin.readline():
            return 1
        seconds, count = timed(trainer, WARM_UP)
        found = {
            "seconds": seconds,
            "iterations": count,
            "graphs": getattr(trainer.iteration, "graphs", 0),
            **memory(),
            "image_bytes": image_bytes(config),
            "settings": trainer.config.to_dict(),
            "machine": machine_info(),
            "versions": versions(),
        }
        print(json.dumps(found), flush=True)
        if CUDA and os.environ.get("FASTDAT_LAUNCHES"):
            launched(trainer, WARM_UP + 1 + count, Path(os.environ["FASTDAT_LAUNCHES"]))
        trainer.folder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
