"""Runs one part of gpu-check as a process that ends within its limit, whatever happens in it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.gpu_check import records
from bench.gpu_check.parts import Part
from bench.gpu_check.result import Outcome, Result

GRACE = 15.0
"""Seconds before its limit at which a part gets SIGINT, so that pytest can end in order; at the limit it is killed."""


def run_part(part: Part, name: str, result: Result) -> Outcome:
    """Run a part until it ends or reaches its limit, and copy its output to standard output and the log."""
    path = result.records_path(name)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "bench.gpu_check.records"]
    command += [*parallel_options(part), *_warning_options(), *part.arguments]
    print(f"gpu-check: {name}, {part.limit:.0f} s at most: pytest {' '.join(part.arguments)}", flush=True)
    started, begin = time.time(), time.monotonic()
    with ExitStack() as stack:
        logs = [stack.enter_context(log.open("a")) for log in result.logs()]
        for log in logs:
            log.write(f"\n=== {name} ===\n")
        status, ended_by = _run(command, _environment(part, path), part.limit, logs)
    outcome = Outcome(records.read(path), status, ended_by, started, time.monotonic() - begin, part.limit)
    path.unlink(missing_ok=True)
    return outcome


def _environment(part: Part, records_path: Path) -> dict[str, str]:
    environment = {**os.environ, records.VARIABLE: str(records_path.absolute()), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH")]))
    environment |= part.environment
    if part.begin_until is not None:
        environment.setdefault("FASTDAT_BENCH_SECONDS", str(part.begin_until))
    return environment


def parallel_options(part: Part) -> list[str]:
    """Options of pytest that run tests in several processes; none for benchmarks."""
    if part.workers is None:
        return []
    options = ["-p", "no:benchmark"]  # under pytest-xdist it would only warn
    workers = min(part.workers, os.cpu_count() or 1)
    if importlib.util.find_spec("xdist") is not None and workers > 1:
        options += ["-n", str(workers)]
    return options


def _warning_options() -> list[str]:
    """Options of pytest that report unknown warnings, which pyproject.toml turns into errors."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    known = [entry for entry in settings["filterwarnings"] if entry != "error"]
    return [option for entry in ("default", *known) for option in ("-W", entry)]


def _run(
    command: list[str], environment: dict[str, str], limit: float, logs: Sequence[IO[str]]
) -> tuple[int, str | None]:
    """Exit status of a command, and what ended it early: "limit", "interrupt", or None.

    The command gets SIGINT ``GRACE`` seconds before the limit. At the limit it is killed with all its child processes.
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
    copier = threading.Thread(target=_copy_output, args=(process.stdout, logs), daemon=True)
    copier.start()
    ended_by = None
    try:
        process.wait(timeout=limit - GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
        ended_by = "interrupt" if isinstance(reason, KeyboardInterrupt) else "limit"
        # A second signal is ignored: it would lose the results that are being saved.
        with _signal_handlers(dict.fromkeys(END_SIGNALS, signal.SIG_IGN)):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(
                process.pid, signal.SIGKILL
            )  # all that is left, such as the compiler's worker processes
    status = process.wait()
    copier.join(timeout=5)
    return status, ended_by


def _copy_output(output: IO[str], logs: Sequence[IO[str]]) -> None:
    with output:
        for line in output:
            print(line, end="", flush=True)
            for log in logs:
                log.write(line)
                log.flush()


# --- signals -------------------------------------------------------------------------------------------------------

END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""How a terminal and a scheduler ask a process to end."""


def interruptible() -> AbstractContextManager[None]:
    """Within it, each of ``END_SIGNALS`` raises KeyboardInterrupt."""
    return _signal_handlers(dict.fromkeys(END_SIGNALS, _interrupt))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def _signal_handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
