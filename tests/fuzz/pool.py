"""Processes that try the inputs, and a parent that survives whatever the inputs do to them."""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from tests.fuzz.readers import all_targets
from tests.fuzz.target import MIB, Fault, Tally, Target, arm_alarm, attempt

CRASH_AT = "FASTDAT_FUZZ_CRASH_AT"
"""Names the input at which a process kills itself: the test of what follows a crash."""
CHUNK = 2_500
"""Inputs that a process is given at once."""
_MEMORY = 4096 * MIB
"""That a process may have beyond what it has when it begins; it is refused more."""
_SILENCE = 90.0
"""Seconds after which a process that has not gone on to the next input is killed."""
_MOST_FAULTS = 20
"""Of a reader; one that has more is not tried any further."""

_CONTEXT = get_context("spawn")  # a forked process would share the parent's threads and descriptors


@dataclass(frozen=True)
class Kept:
    """The folder for inputs that were not answered as they must be."""

    folder: Path

    @staticmethod
    def file_name(target: str) -> str:
        """The name of a reader in the name of a file."""
        return re.sub("[^a-z0-9.]+", "_", target.lower())

    def add(self, target: Target, number: int, content: bytes, fault: Fault) -> None:
        """Write the input, and print how to repeat it."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{self.file_name(target.name)}-{number}.bin"
        path.write_bytes(content)
        print(f"{target.name}, input {number}: {fault.kind}: {fault.text}")
        print(f"    repeat it: python -m tests.fuzz --repeat {path}", flush=True)


@dataclass
class _Worker:
    process: Any
    connection: Connection
    number: Synchronized[int]
    """The input that it tries."""
    chunk: tuple[str, int, int] | None = None
    seen: int = -1
    since: float = 0.0


def run(work: Mapping[str, int], seed: int, workers: int, kept: Kept) -> dict[str, Tally]:
    """Try inputs 0, 1, ... of each reader.

    Args:
        work: how many inputs of each reader, by its name.
        seed: of the inputs.
        workers: number of processes.
        kept: where inputs with faults go.
    """
    targets = {target.name: target for target in all_targets()}
    tallies = {name: Tally() for name in work}
    chunks = [
        (name, start, min(start + CHUNK, count))
        for name, count in work.items()
        for start in range(0, count, CHUNK)
    ]
    chunks.reverse()  # the next one is taken from the end
    running = [_start(seed) for _ in range(max(1, workers))]
    try:
        while chunks or any(worker.chunk for worker in running):
            for worker in running:
                if worker.chunk is None and chunks:
                    worker.chunk, worker.seen, worker.since = chunks.pop(), -1, time.monotonic()
                    worker.connection.send(worker.chunk)
            ready = wait([worker.connection for worker in running], timeout=1.0)
            for i, worker in enumerate(running):
                if worker.chunk is None:
                    continue
                name, _, stop = worker.chunk
                ended = (
                    _receive(worker, tallies[name], targets[name], kept)
                    if worker.connection in ready
                    else None
                )
                ended = ended or _silent(worker)
                if (
                    ended is not None
                ):  # the process is gone: its input is the fault, and another goes on behind it
                    number = worker.number.value
                    content = targets[name].input(seed, number)
                    tallies[name].inputs += 1
                    tallies[name].faults.append(ended)
                    kept.add(targets[name], number, content, ended)
                    running[i] = _start(seed)
                    if number + 1 < stop:
                        chunks.append((name, number + 1, stop))
            chunks = worth_trying(chunks, tallies)
    finally:
        for worker in running:
            with suppress(OSError):
                worker.connection.send(None)
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
    return tallies


def worth_trying(
    chunks: Sequence[tuple[str, int, int]], tallies: Mapping[str, Tally]
) -> list[tuple[str, int, int]]:
    """The chunks of readers that do not have too many faults already."""
    return [chunk for chunk in chunks if len(tallies[chunk[0]].faults) < _MOST_FAULTS]


def _start(seed: int) -> _Worker:
    ours, theirs = _CONTEXT.Pipe()
    number: Any = _CONTEXT.Value("q", 0, lock=False)
    process = _CONTEXT.Process(target=_work, args=(theirs, number, seed), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, number)


def _receive(worker: _Worker, tally: Tally, target: Target, kept: Kept) -> Fault | None:
    """Take what the process sends: a fault with its input, or the tally of a chunk. A Fault if it has died."""
    try:
        message = worker.connection.recv()
    except EOFError:
        worker.process.join()
        return Fault("crash", f"the process ended with status {worker.process.exitcode}")
    if isinstance(message, Tally):
        tally.add(message)
        worker.chunk = None
    else:
        number, content, fault = message
        tally.faults.append(fault)
        kept.add(target, number, content, fault)
    return None


def _silent(worker: _Worker) -> Fault | None:
    """A Fault if the process has been with one input for too long; it is killed then."""
    number = worker.number.value
    if worker.chunk is None or number != worker.seen:
        worker.seen, worker.since = number, time.monotonic()
        return None
    if time.monotonic() - worker.since < _SILENCE:
        return None
    worker.process.kill()
    worker.process.join()
    return Fault("hang", f"no answer after {_SILENCE:.0f} s")


# --- in the process --------------------------------------------------------------------------------------------------


def _work(connection: Connection, number: Any, seed: int) -> None:
    """Try chunk after chunk, and send the tally of each."""
    quiet()
    targets = {target.name: target for target in all_targets()}
    _limit_memory()
    arm_alarm()
    warmed: set[str] = set()
    while (chunk := connection.recv()) is not None:
        name, start, stop = chunk
        target = targets[name]
        with tempfile.TemporaryDirectory(dir=_fast_folder(), prefix="fastdat-fuzz-") as scratch:
            folder = Path(scratch)
            target.prepare(folder)
            if name not in warmed:
                warm(target, folder)
                warmed.add(name)
            tally = try_chunk(
                target, range(start, stop), seed, folder, partial(_announce, number), connection.send
            )
        connection.send(tally)


def _announce(number: Any, i: int) -> None:
    number.value = i
    if os.environ.get(CRASH_AT) == str(i):
        os.kill(os.getpid(), signal.SIGKILL)


def try_chunk(
    target: Target,
    numbers: range,
    seed: int,
    folder: Path,
    announce: Callable[[int], None],
    send: Callable[[tuple[int, bytes, Fault]], None],
) -> Tally:
    """Try the inputs of these numbers, and send each fault at once: a later input may end the process.

    Returns:
        The tally without the faults, which were sent.
    """
    tally = Tally()
    for number in numbers:
        announce(number)
        content = target.input(seed, number)
        fault = attempt(target, content, folder, tally)
        if fault is not None:
            send((number, content, fault))
            if len(tally.faults) >= _MOST_FAULTS:
                break
    return replace(tally, faults=[])


def warm(target: Target, folder: Path) -> None:
    """Read the good files, so that everything is imported that reading imports."""
    for content in target.good():
        with suppress(*target.errors):
            target.read(content, folder)
        target.tidy(folder)
    with suppress(*target.errors):
        target.read(b"", folder)
    target.tidy(folder)


def quiet() -> None:
    """Readers warn of damage; libtiff even writes to the standard error output itself."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _fast_folder() -> str | None:
    """A folder in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
