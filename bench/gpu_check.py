"""GPU tests and benchmarks in parts, on a machine with a GPU and whatever torch, triton and pytest it has.

    python -m bench.gpu_check [PART ...]        # make gpu-check PART="smoke step64"; all parts without any

Installs nothing and needs no network. Each part ends by itself within its limit, and what it found is then written to
bench/results/<gpu>-<date>.json, beside what other parts found before; the output is added to the .log beside it.
Where OUT is set, both are in the folder that it names, too. FASTDAT_COMMIT names the commit where the tree is a
copy without its history. Exits with 0 when every part passed, with 1 when one did not, with 2 for an unknown part.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

try:
    import torch
except ModuleNotFoundError:
    sys.exit(
        f"gpu-check: {sys.executable} has no torch, and nothing is installed here; name the Python that has it, as in "
        "make gpu-check PYTHON=.venv/bin/python"
    )

from bench import gpu_records
from bench.gpu_result import Outcome, Result

GRACE = 15.0
"""Seconds before its limit at which a part gets SIGINT, on which pytest ends in order; at the limit it is killed."""


@dataclass(frozen=True)
class Part:
    """One run of pytest."""

    arguments: tuple[str, ...]
    """Of pytest."""
    limit: float
    """Seconds after which nothing of it is left."""
    begin_until: float | None = None
    """Seconds after which a benchmark begins nothing further (FASTDAT_BENCH_SECONDS)."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables."""
    workers: int | None = None
    """Processes for tests, where pytest-xdist is installed; None for benchmarks, of which one runs at a time."""


def _benchmarks(*selection: str, limit: float) -> Part:
    return Part((*selection, "--benchmark-only"), limit, begin_until=0.6 * limit)


def parts() -> dict[str, Part]:
    """The most wanted first. Limits are for cold caches on 16 cores; the longest part is half of ten minutes."""
    tests = gpu_tests()
    step = "bench/bench_dat_step.py"
    return {
        "smoke": Part((*tests, "-m", "gpu and smoke"), limit=120, workers=8),
        "step64": _benchmarks(step, "-k", "batch64", limit=300),
        "kernels": _benchmarks("bench/bench_kernels.py", limit=120),
        "tests": Part((*tests, "-m", "gpu"), limit=240, workers=12),
        "cudnn": replace(
            _benchmarks(step, "-k", "batch64", limit=150), environment={"FASTDAT_CUDNN_BENCHMARK": "1"}
        ),
        "step512": _benchmarks(step, "-k", "batch512", limit=280),
        "step2048": _benchmarks(step, "-k", "batch2048", limit=280),
        "loop": Part(("bench/bench_training.py", "bench/bench_data.py", "--benchmark-only"), limit=240),
    }


def gpu_tests() -> list[str]:
    """Files and folders with GPU tests: the others may import what is not installed.

    Tests in tests/kernels are marked as they are collected, all others name the mark.
    """
    files = sorted(Path("tests").rglob("test_*.py"))
    marked = [str(path) for path in files if "pytest.mark.gpu" in path.read_text()]
    return ["tests/kernels", *(path for path in marked if not path.startswith("tests/kernels"))]


def main(arguments: list[str] | None = None) -> int:
    known = parts()
    parser = argparse.ArgumentParser(prog="gpu-check", description="GPU tests and benchmarks, in parts.")
    parser.add_argument(
        "part", nargs="*", help=f"{', '.join(known)}; all of them, in this order, without any"
    )
    wanted = parser.parse_args(arguments).part or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"there is no part {', '.join(map(repr, unknown))}; the parts are {', '.join(known)}")
    if not torch.cuda.is_available():
        print(
            "gpu-check: no GPU here (torch.cuda.is_available() is false), so nothing was checked",
            file=sys.stderr,
        )
        return 1
    result = Result.of_today()
    with _signals_of_the_end(dict.fromkeys(ENDS, _interrupt)):
        for name in wanted:
            try:
                outcome = run(known[name], name, result)
            except KeyboardInterrupt:
                print("gpu-check: interrupted", file=sys.stderr)
                break
            result.add(name, outcome)
            for line in result.describe(name):
                print(f"gpu-check: {line}", flush=True)
            if outcome.interrupted:
                break
    print(f"gpu-check: {result.path}")
    print(f"gpu-check: {result.verdict(wanted)}")
    return 0 if result.passed(wanted) else 1


def run(part: Part, name: str, result: Result) -> Outcome:
    """Run a part until it ends or its limit is reached, its output going to ours and to the log."""
    records = result.records_path(name)
    records.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "bench.gpu_records"]
    command += [*_in_parallel(part), *_reporting_warnings(), *part.arguments]
    environment = {**os.environ, gpu_records.VARIABLE: str(records.absolute()), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH")]))
    environment |= part.environment
    if part.begin_until is not None:
        environment.setdefault("FASTDAT_BENCH_SECONDS", str(part.begin_until))
    print(f"gpu-check: {name}, {part.limit:.0f} s at most: pytest {' '.join(part.arguments)}", flush=True)
    started, begin = time.time(), time.monotonic()
    with ExitStack() as stack:
        logs = [stack.enter_context(path.open("a")) for path in result.logs()]
        for log in logs:
            log.write(f"\n=== {name} ===\n")
        status, ended_by = _run(command, environment, part.limit, logs)
    outcome = Outcome(
        gpu_records.read(records), status, ended_by, started, time.monotonic() - begin, part.limit
    )
    records.unlink(missing_ok=True)
    return outcome


def _in_parallel(part: Part) -> list[str]:
    """Options of pytest for a run of tests; none for benchmarks."""
    if part.workers is None:
        return []
    options = ["-p", "no:benchmark"]  # which does nothing under pytest-xdist but warn
    workers = min(part.workers, os.cpu_count() or 1)
    if importlib.util.find_spec("xdist") is not None and workers > 1:
        options += ["-n", str(workers)]
    return options


def _reporting_warnings() -> list[str]:
    """Options of pytest under which unknown warnings are reported, where pyproject.toml makes them errors."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    known = [entry for entry in settings["filterwarnings"] if entry != "error"]
    return [option for entry in ("default", *known) for option in ("-W", entry)]


def _run(
    command: list[str], environment: dict[str, str], limit: float, logs: Sequence[IO[str]]
) -> tuple[int, str | None]:
    """Exit status of a command, and what ended it before its time: "limit", "interrupt" or None.

    It is asked to end by SIGINT ``GRACE`` seconds before the limit, and then killed with all that it started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"TORCHINDUCTOR_COMPILE_THREADS": "2", **environment} if "-n" in command else environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    teller = threading.Thread(target=_tell, args=(process.stdout, logs), daemon=True)
    teller.start()
    ended_by = None
    try:
        process.wait(timeout=limit - GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
        ended_by = "interrupt" if isinstance(reason, KeyboardInterrupt) else "limit"
        with _signals_of_the_end(
            dict.fromkeys(ENDS, signal.SIG_IGN)
        ):  # a second one would lose what is being saved
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever is left, the compiler's worker processes say
    status = process.wait()
    teller.join(timeout=5)
    return status, ended_by


def _tell(output: IO[str], logs: Sequence[IO[str]]) -> None:
    with output:
        for line in output:
            print(line, end="", flush=True)
            for log in logs:
                log.write(line)
                log.flush()


ENDS = (signal.SIGINT, signal.SIGTERM)
"""How a terminal and a scheduler ask for an end."""


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def _signals_of_the_end(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
