"""Runs pytest in a fork of a process that has imported torch and its compiler: half of what a short test run takes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.environment import REPOSITORY

POLLS = 0.02  # seconds


def import_what_tests_need() -> None:
    """torch and what comes with it; nothing of this repository, which every fork reads from its own copy."""
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401


def run_pytest(
    arguments: list[str], environment: Mapping[str, str], timeout: float
) -> tuple[int | None, str]:
    """pytest's exit status and all that it prints.

    Args:
        arguments: Those of pytest, which runs in the current folder.
        environment: Added to the environment; nothing that an import above has read already.
        timeout: Seconds; afterwards pytest and all its children are killed, and the status is None.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _become_pytest(arguments, environment, output.fileno())
        status = _wait(child, time.monotonic() + timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it left running as well
        if status is None:
            os.waitpid(child, 0)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _become_pytest(arguments: list[str], environment: Mapping[str, str], output: int) -> None:
    status = 3
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.environ.update(environment)
        sys.dont_write_bytecode = True  # its variable has been read already
        _forget_this_tree()
        import pytest

        status = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)  # nothing of the process that was forked is cleaned up twice


def _forget_this_tree() -> None:
    """Have all that is imported from now on come from the current folder."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "fastdat", "bench")]:
        del sys.modules[name]
    sys.path[:] = [os.getcwd(), *(path for path in sys.path if Path(path).resolve() != REPOSITORY)]


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLLS)
    return None
