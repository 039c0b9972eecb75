"""Which tests should notice a change of a file: tests/mutants/noticing.toml, and the command that runs them."""

from __future__ import annotations

import shlex
import sys
import tomllib
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("noticing.toml")


@cache
def noticing_tests() -> dict[str, list[str]]:
    """File of fastdat or kernels -> files of tests, the likeliest first, all relative to the repository."""
    table = tomllib.loads(TABLE.read_text())
    then = table.pop("then")
    found = {}
    for unit, files in table.items():
        for name, tests in files.items():
            path = Path(unit) / name
            after = next((then[str(folder)] for folder in path.parents if str(folder) in then), [])
            found[str(path)] = [f"tests/{test}" for test in dict.fromkeys([*tests, *after])]
    return found


def command_for(file: str) -> str:
    """Runs the tests for a changed file until one fails.

    Triton decides once in a process whether its interpreter runs the kernels, so the tests of kernels have a process
    of their own; of a file whose tests are of both sorts, they are the second one.
    """
    tests = noticing_tests()[file]
    options = "-x -q -rfE --no-header --tb=no -m 'not slow and not gpu'"
    parts = [
        pytest_command(options, with_interpreter) + shlex.join(chosen)
        for with_interpreter in (False, True)
        if (chosen := [test for test in tests if is_run_by_interpreter(test) == with_interpreter])
    ]
    return " && ".join(parts)


def is_run_by_interpreter(test: str) -> bool:
    return test.startswith("tests/kernels/")


def pytest_command(options: str, with_interpreter: bool) -> str:
    """pytest in a copy of the tree, up to the names of the tests; to be run by a shell."""
    environment = (
        f"PYTHONPATH=. OMP_NUM_THREADS=1 TRITON_INTERPRET={int(with_interpreter)} PYTHONDONTWRITEBYTECODE=1"
    )
    return f"env {environment} {sys.executable} -m pytest -p no:cacheprovider --timeout=120 {options} "


def in_shell(command: str) -> str:
    """The command as one that needs no shell, with what it says to standard error in its standard output."""
    return shlex.join(["bash", "-c", f"({command}) 2>&1"])
