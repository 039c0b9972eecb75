"""Which tests should notice a change of a file: tests/mutants/noticing.toml."""

from __future__ import annotations

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


COMPILED = "tests/kernels/test_offline"  # for GPUs, which the interpreter does not do


def by_interpreter(tests: list[str]) -> dict[bool, list[str]]:
    """The tests of kernels, which Triton's interpreter runs, and the others; each sort only where it has some.

    Triton decides once in a process whether its interpreter runs the kernels.
    """
    found: dict[bool, list[str]] = {False: [], True: []}
    for test in tests:
        found[test.startswith("tests/kernels/") and not test.startswith(COMPILED)].append(test)
    return {sort: chosen for sort, chosen in found.items() if chosen}
