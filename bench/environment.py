"""What a result says of the machine and the code it was measured with. `python -m bench.environment` prints where
results of this machine go. No host names, no user names, no paths."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

RESULTS = Path("bench") / "results"


def device_name() -> str:
    """The GPU if there is one, else the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()


def processor_name() -> str:
    """The processor's own name where Linux tells it, and how many cores may be used."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = found.group(1) if found else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def machine_info() -> dict[str, Any]:
    """Hardware and versions, for the JSON."""
    info: dict[str, Any] = {
        "device": device_name(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton_version(),
    }
    if torch.cuda.is_available():
        info |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver_version(),
        }
    return info


def commit_info() -> dict[str, Any]:
    """The commit, and whether the tree differs from it; FASTDAT_COMMIT names it for a copy without its history."""
    named = os.environ.get("FASTDAT_COMMIT")
    if named:
        return {"id": named, "dirty": None}
    return {
        "id": _output("git", "rev-parse", "HEAD") or "unknown",
        "dirty": bool(_output("git", "status", "--short")),
    }


def results_path() -> Path:
    """bench/results/<device>-<date>.json"""
    name = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    return RESULTS / f"{name}-{datetime.date.today().isoformat()}.json"


def _triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _driver_version() -> str | None:
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")


def _output(*command: str) -> str | None:
    """Standard output of a command, stripped; None where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    print(results_path())
