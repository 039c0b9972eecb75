"""The parts of gpu-check: what each runs, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """One run of pytest."""

    arguments: tuple[str, ...]
    """Arguments of pytest."""
    limit: float
    """Seconds after which the part is killed with all its processes."""
    begin_until: float | None = None
    """Seconds after which no further benchmark begins (FASTDAT_BENCH_SECONDS); None is no limit."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Additional environment variables."""
    workers: int | None = None
    """Processes for tests, if pytest-xdist is installed; None for benchmarks, which run one at a time."""


def all_parts() -> dict[str, Part]:
    """The parts by name, the most important first.

    The limits are for cold caches and 16 cores. Any two parts fit into ten minutes.
    """
    tests = gpu_tests()
    step = "bench/bench_dat_step.py"
    return {
        "smoke": Part((*tests, "-m", "gpu and smoke"), limit=120, workers=8),
        "step64": _benchmarks(step, "-k", "batch64", limit=300),
        "kernels": _benchmarks("bench/bench_kernels.py", limit=120),
        "tests": Part((*tests, "-m", "gpu"), limit=300, workers=12),
        "host": _benchmarks("bench/bench_host.py", limit=120),
        "cudnn": replace(
            _benchmarks(step, "-k", "batch64", limit=150), environment={"FASTDAT_CUDNN_BENCHMARK": "1"}
        ),
        "step512": _benchmarks(step, "-k", "batch512", limit=280),
        "step2048": _benchmarks(step, "-k", "batch2048", limit=280),
        "iteration": _benchmarks("bench/bench_iteration.py", limit=280),
        "sizes": Part(("bench/bench_run_size.py", "--benchmark-only"), limit=290),
        "train": _benchmarks("bench/bench_cifar10_run.py", limit=180),
        "loop": Part(("bench/bench_training.py", "bench/bench_data.py", "--benchmark-only"), limit=240),
    }


def _benchmarks(*selection: str, limit: float) -> Part:
    return Part((*selection, "--benchmark-only"), limit, begin_until=0.6 * limit)


def gpu_tests() -> list[str]:
    """Files and folders with GPU tests. Other test files may import packages that are not installed.

    The tests in tests/kernels get their mark while they are collected; all others have it in their file.
    """
    files = sorted(Path("tests").rglob("test_*.py"))
    marked = [str(path) for path in files if "pytest.mark.gpu" in path.read_text()]
    return ["tests/kernels", *(path for path in marked if not path.startswith("tests/kernels"))]
