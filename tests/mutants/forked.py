"""Runs pytest in a fork of a process that has imported torch and its compiler: half of what a short test run takes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
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


def run_tests(arguments: list[str], with_interpreter: bool, timeout: float) -> tuple[int | None, str]:
    """pytest's exit status, None where it took longer than ``timeout`` seconds, and all that it prints.

    It runs in the current folder, a copy of the tree. What torch imports has asked Triton already whether its
    interpreter runs the kernels, so that this needs a process of its own.
    """
    options = ["-p", "no:cacheprovider", "--timeout=120", "-q", "-rfE", "--no-header", "--tb=no"]
    arguments = [*options, *arguments]
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.getcwd(),
        # What is compiled is kept from mutant to mutant, and apart from what is compiled without any.
        "TORCHINDUCTOR_CACHE_DIR": str(Path.cwd().parent / "cache" / "inductor"),
        "TRITON_CACHE_DIR": str(Path.cwd().parent / "cache" / "triton"),
    }
    if not with_interpreter:
        return run_in_fork(arguments, environment, timeout)
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = os.environ | environment | {"TRITON_INTERPRET": "1"}
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        done = subprocess.run(command, env=environment, timeout=timeout, **out)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout


def run_in_fork(
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
