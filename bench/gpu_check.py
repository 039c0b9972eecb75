"""GPU tests and benchmarks in one go, on a machine with a GPU and whatever torch, triton and pytest it has.

    PYTHONPATH=. python3 bench/gpu_check.py

Installs nothing, needs no network and ends within 9 minutes. The result is bench/results/<gpu>-<date>.json, which
holds what was finished even if the time ran out. Exits with 0 when every test and benchmark passed, else with 1.
FASTDAT_COMMIT names the commit where the tree is a copy without its history.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

try:
    import torch
except ModuleNotFoundError:
    sys.exit(
        f"gpu-check: {sys.executable} has no torch, and nothing is installed here; name the Python that has it, as in "
        "make gpu-check PYTHON=.venv/bin/python"
    )

from bench import environment
from fastdat import provenance

SECONDS = 9 * 60
TEST_SECONDS = 150
"""For each run of tests."""
KERNEL_SECONDS = 90
"""After these bench_kernels begins no further case; its cases come the most wanted first."""
RESERVE = 10
"""Seconds kept back for writing the result."""
BENCHMARKS = {  # name -> what to tell pytest; each is a process of its own, the most wanted first
    "kernels": ["bench/bench_kernels.py"],
    "dat_step, batch 64": ["bench/bench_dat_step.py", "-k", "batch64"],
    "dat_step, batch 512": ["bench/bench_dat_step.py", "-k", "batch512"],
    "dat_step, batch 2048": ["bench/bench_dat_step.py", "-k", "batch2048"],
    "training loop": ["bench/bench_training.py"],
    "data": ["bench/bench_data.py"],
}


def main() -> int:
    if not torch.cuda.is_available():
        print(
            "gpu-check: no GPU here (torch.cuda.is_available() is false), so nothing was checked",
            file=sys.stderr,
        )
        return 1
    end = time.monotonic() + SECONDS - RESERVE
    result: dict[str, Any] = {
        "machine_info": provenance.machine_info(),
        "commit_info": provenance.commit_info(),
        "benchmarks": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        result["tests"] = {}
        for name, paths in gpu_tests().items():
            until = min(time.monotonic() + TEST_SECONDS, end)
            result["tests"][name] = run_tests(paths, Path(folder), until)
        result["benchmark_runs"] = {}
        for name, selection in BENCHMARKS.items():
            status, benchmarks = run_benchmarks(selection, Path(folder), end)
            result["benchmark_runs"][name] = status
            result["benchmarks"] += benchmarks
    path = write(result)
    outcome = {name: tests["status"] for name, tests in result["tests"].items()} | result["benchmark_runs"]
    for name, status in outcome.items():
        print(f"gpu-check: {name}: {status}")
    print(f"gpu-check: {path}")
    return 0 if all(status == "passed" for status in outcome.values()) else 1


def gpu_tests() -> dict[str, list[str]]:
    """Name of a run -> files and folders with GPU tests: the others may import what is not installed.

    Tests in tests/kernels are marked as they are collected, all others name the mark.
    """
    files = sorted(Path("tests").rglob("test_*.py"))
    marked = [str(path) for path in files if "pytest.mark.gpu" in path.read_text()]
    training = [path for path in marked if Path(path).is_relative_to("tests/training")]
    return {
        "tests of the kernels": ["tests/kernels"],
        "tests of the step": [path for path in marked if path not in training],
        "tests of training": training,
    }


def run_tests(paths: list[str], folder: Path, end: float) -> dict[str, Any]:
    """The tests marked gpu: how it went, and the counts."""
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    status = run_pytest([*paths, "-m", "gpu", f"--junitxml={report}"], end)
    totals = counts(report)
    if status == "passed" and totals["tests"] == totals["skipped"]:
        status = "all skipped"
    return {"status": status, **totals}


def run_benchmarks(selection: list[str], folder: Path, end: float) -> tuple[str, list[dict[str, Any]]]:
    """One selection of benchmarks: how it went, and pytest-benchmark's records."""
    report = folder / "benchmarks.json"
    report.unlink(missing_ok=True)
    os.environ.setdefault("FASTDAT_BENCH_SECONDS", str(KERNEL_SECONDS))  # read by bench_kernels alone
    status = run_pytest([*selection, "--benchmark-only", f"--benchmark-json={report}"], end)
    written = report.exists() and report.stat().st_size > 0
    return status, json.loads(report.read_text())["benchmarks"] if written else []


def run_pytest(arguments: list[str], end: float) -> str:
    """Run pytest until `end` (time.monotonic()) at most: "passed", "failed", "nothing selected" or "out of time"."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    left = end - time.monotonic()
    if left <= 0:
        return "out of time"
    print(f"gpu-check: {' '.join(command[1:])}  ({left:.0f} s left)", flush=True)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        code = process.wait(timeout=left)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the compiler's worker processes
        process.wait()
        return "out of time"
    return {0: "passed", 5: "nothing selected"}.get(code, "failed")


def counts(report: Path) -> dict[str, int]:
    """How many tests ran, failed and were skipped, from a JUnit file; nothing where pytest was stopped."""
    if not report.exists():
        return {}
    suites = ET.parse(report).getroot().iter("testsuite")
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for key in totals:
            totals[key] += int(suite.get(key, 0))
    return totals


def write(result: dict[str, Any]) -> Path:
    path = environment.results_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
