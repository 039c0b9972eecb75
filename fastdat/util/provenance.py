"""Where a result comes from: machine, versions and commit. No host names, no user names, no paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastdat.util.version import __version__


def device_name() -> str:
    """The GPU if there is one, else the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()


def processor_name() -> str:
    """The processor's name as Linux reports it, and how many cores may be used."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = found.group(1) if found else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def machine_info() -> dict[str, Any]:
    """Hardware and versions, for JSON."""
    info: dict[str, Any] = {
        "device": device_name(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "fastdat": __version__,
        "torch": torch.__version__,
        "triton": _triton_version(),
    }
    if torch.cuda.is_available():
        info |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        }
    return info


def versions() -> dict[str, str]:
    """Versions of fastdat, torch and Python, on which every result depends."""
    torch_version = str(
        torch.__version__
    )  # torch's own has a type that torch.load(weights_only=True) refuses
    return {"fastdat": __version__, "torch": torch_version, "python": platform.python_version()}


def commit_info() -> dict[str, Any]:
    """The commit of this source tree, and whether the tree differs from it.

    FASTDAT_COMMIT names the commit for a copy without its history; ``id`` is None for an installed package.
    """
    named = os.environ.get("FASTDAT_COMMIT")
    if named:
        return {"id": named, "dirty": None}
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    if _output(*git, "ls-files", "--error-unmatch", here.name) is None:
        return {"id": None, "dirty": None}
    return {"id": _output(*git, "rev-parse", "HEAD"), "dirty": bool(_output(*git, "status", "--short"))}


def commit_in_words(commit: Mapping[str, Any]) -> str:
    """What :func:`commit_info` has found: the commit, or else the version, and whether the tree differs from it."""
    return f"{commit['id'] or __version__}{' with changes' if commit['dirty'] else ''}"


def short_commit(commit: str) -> str:
    """What :func:`commit_in_words` gives, with ten digits of the commit; without a commit, the version."""
    short = re.sub(r"^([0-9a-f]{10})[0-9a-f]{30}\b", r"commit \1", commit)
    return short if short != commit else f"fastdat {commit}"


def _triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _output(*command: str) -> str | None:
    """Standard output of a command, stripped; None where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
