"""What is fuzzed: a reader, good files for it, and the errors that it may answer with."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType

from tests.fuzz.mutation import mutated
from tests.fuzz.watch import Watch

MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Args:
        name: of the reader.
        make_seeds: good files. With ``wrap``, what it wraps.
        read: reads the content; it may put it into a file in the folder, which is empty but for what ``prepare`` left.
        errors: what it may raise; anything else is a fault.
        inputs: how many are tried by ``make fuzz``.
        tokens: pieces of the format.
        wrap: makes a file of a changed content, with the right checksums: changes behind them are tried too. A fifth
            of the inputs are changed afterwards instead.
        prepare: fills the folder once.
        megabytes: of memory that an input may take.
        seconds: that an input may take.
        reads: parts of the paths of other files that it may read; code that jinja makes of them may run.
        tidy: removes what the reader has made of an input.
    """

    name: str
    make_seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    errors: tuple[type[BaseException], ...]
    inputs: int
    tokens: Sequence[bytes] = ()
    wrap: Callable[[bytes], bytes] | None = None
    prepare: Callable[[Path], object] = lambda folder: None
    megabytes: int = 256
    seconds: float = 10.0
    reads: Sequence[str] = ()
    tidy: Callable[[Path], object] = lambda folder: None

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        return self.make_seeds()

    def input(self, seed: int, number: int) -> bytes:
        """The input of this number; the same for the same ``seed``, in any process."""
        rng = random.Random(f"{seed}/{self.name}/{number}")
        if self.wrap is None:
            return mutated(rng, self.seeds, self.tokens)
        if rng.random() < 0.2:
            return mutated(rng, [self.wrap(rng.choice(self.seeds))], self.tokens)
        return self.wrap(mutated(rng, self.seeds, self.tokens))

    def good(self) -> list[bytes]:
        """Whole files, each of which must be read without an error."""
        return [seed if self.wrap is None else self.wrap(seed) for seed in self.seeds]


@dataclass
class Fault:
    """An input that was not answered as it must be.

    Args:
        kind: "error", "executed", "time", "memory", "crash" or "hang".
        text: what happened.
    """

    kind: str
    text: str


class TooLongError(BaseException):
    """No Exception, so that no reader takes it for damage."""


@dataclass
class Tally:
    """What came of the inputs."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    megabytes: int = 0
    faults: list[Fault] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count the inputs of another process too."""
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.refused += other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.megabytes = max(self.megabytes, other.megabytes)
        self.faults += other.faults


def attempt(target: Target, content: bytes, folder: Path, tally: Tally) -> Fault | None:
    """Let the reader read ``content``, and note what it did.

    Returns:
        What it did wrong, which is in ``tally`` too; None if nothing.
    """
    before, start = _reset_peak(), time.monotonic()
    watch = Watch(folder, target.reads)
    accepted, fault = False, None
    signal.setitimer(signal.ITIMER_REAL, target.seconds)
    try:
        with watch:
            target.read(content, folder)
        accepted = True
    except target.errors:
        pass
    except TooLongError:
        fault = Fault("time", f"it took more than {target.seconds} s")
    except BaseException as error:  # SystemExit would end the fuzzing
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = Fault("error", "".join(traceback.format_exception(error, limit=-6)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if watch.found:
        fault = Fault("executed", "; ".join(watch.found[:5]))
    seconds, taken = time.monotonic() - start, (_peak() - before) // MIB
    if fault is None and taken > target.megabytes:
        fault = Fault("memory", f"it took {taken} MiB; allowed are {target.megabytes}")
    target.tidy(folder)
    tally.inputs += 1
    tally.accepted += accepted
    tally.refused += not accepted and fault is None
    tally.slowest = max(tally.slowest, seconds)
    tally.megabytes = max(tally.megabytes, taken)
    if fault is not None:
        tally.faults.append(fault)
    return fault


def arm_alarm() -> None:
    """Let an input that takes too long be interrupted: call it once in a process."""
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TooLongError


def _reset_peak() -> int:
    """Let the kernel measure the peak from now on; returns the memory that this process has now, in bytes."""
    with suppress(OSError):  # some sandboxes forbid it: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most memory that this process has had since, in bytes."""
    for line in Path("/proc/self/status").read_bytes().splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
