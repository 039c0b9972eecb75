"""Deliberate faults that are written down one by one: those of Triton kernels, and those of the system as a whole."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.environment import REPOSITORY
from tests.mutants.copies import make_copy

LISTS = (
    Path(__file__).with_name("kernel_faults.toml"),
    Path(__file__).with_name("system_faults.toml"),
)
FAILED = 1  # pytest's status; that of a test which was not found or not selected is another one


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


def unnoticed(chosen: list[Fault], folder: Path, jobs: int) -> list[Fault]:
    """Apply every fault to a copy of the tree and run its test; returns the faults with which it still passes."""
    copies: Queue[Path] = Queue()
    for i in range(jobs):
        make_copy(folder / f"copy-{i}")
        copies.put(folder / f"copy-{i}")

    def passes(fault: Fault) -> bool:
        copy = copies.get()
        try:
            return _passes(fault, copy)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(jobs) as pool:
        return [fault for fault, missed in zip(chosen, pool.map(passes, chosen), strict=True) if missed]


def _passes(fault: Fault, copy: Path) -> bool:
    path = copy / fault.file
    source = path.read_text()
    path.write_text(fault.applied(source))
    try:
        return (
            subprocess.run(shlex.split(command(fault.test)), cwd=copy, capture_output=True).returncode
            != FAILED
        )
    finally:
        path.write_text(source)


def command(test: str) -> str:
    """Runs one test; those of the kernels under triton's interpreter."""
    interpreter = "TRITON_INTERPRET=1" if test.startswith("tests/kernels/") else "TRITON_INTERPRET=0"
    environment = f"env PYTHONPATH=. OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 {interpreter}"
    options = "-x -q --no-header --tb=line -p no:cacheprovider --timeout=300"
    return f"{environment} {sys.executable} -m pytest {options} {shlex.quote(test)}"


def source_of(fault: Fault) -> str:
    """The file of a fault as it is."""
    return (REPOSITORY / fault.file).read_text()
