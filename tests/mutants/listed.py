"""Deliberate faults that are written down one by one: those of Triton kernels, and those of the system as a whole."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.environment import REPOSITORY
from tests.mutants.copies import in_copies
from tests.mutants.forked import run_tests
from tests.mutants.noticing import by_interpreter

LISTS = (
    Path(__file__).with_name("kernel_faults.toml"),
    Path(__file__).with_name("system_faults.toml"),
)
TIMEOUT = 300.0  # seconds


@dataclass(frozen=True)
class Fault:
    """`old` stands exactly once in `file`, and `new` in its place is the fault that `test` must notice."""

    name: str
    file: str
    old: str
    new: str
    test: str

    def applied(self, source: str) -> str:
        """The source with this fault.

        Raises:
            ValueError: `old` does not occur exactly once: the code was edited, and this entry must follow.
        """
        if source.count(self.old) != 1:
            raise ValueError(
                f"fault {self.name!r}: {self.file} holds {source.count(self.old)} times {self.old!r}, "
                "which must stand there once; write what stands there now"
            )
        return source.replace(self.old, self.new)


def faults(listing: Path) -> list[Fault]:
    """The faults of one list, in its order."""
    return [Fault(**each) for each in tomllib.loads(listing.read_text())["fault"]]


def unnoticed(chosen: list[Fault], folder: Path, jobs: int) -> dict[Fault, str]:
    """Apply every fault to a copy of the tree and run its test.

    Returns:
        The faults with which it does not fail, and what pytest says of it: that it passes, was skipped, or not found.
    """
    said = dict(in_copies(chosen, _said, folder, jobs))
    return {fault: said[fault] for fault in chosen if said[fault]}


def _said(fault: Fault) -> str:
    """pytest's last line with a fault in the copy of the tree that is the current folder; empty if its test fails."""
    path = Path(fault.file)
    source = path.read_text()
    path.write_text(fault.applied(source))
    try:
        ((with_interpreter, tests),) = by_interpreter([fault.test]).items()
        status, output = run_tests(tests, with_interpreter, TIMEOUT)
    finally:
        path.write_text(source)
    if status is None:
        return f"no end in {TIMEOUT:g} s"
    noticed = status == pytest.ExitCode.TESTS_FAILED or status < 0  # below 0, it crashed
    return "" if noticed else (output.strip().splitlines() or [f"status {status}"])[-1]


def source_of(fault: Fault) -> str:
    """The file of a fault as it is."""
    return (REPOSITORY / fault.file).read_text()
