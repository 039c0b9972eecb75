"""Ends a run of several processes when it hangs, and says which of them is the cause.

One process that stops, in a loader that waits for ever or on a machine that died, lets all others wait for it in their
next exchange, without a word. So each process has a thread that tells the others, through the store in which torchrun's
processes found each other, that it is alive, at which step it is, and where its main thread is.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from fastdat.util.ranks import Ranks

STATUS = 74
"""Exit status of a process that ends because the run hangs (EX_IOERR)."""
_PACKAGE = Path(__file__).parents[1]
_WAITING = (str(Path(torch.__file__).parent), str(_PACKAGE))
"""Folders of code that may wait for other processes, or for a device that does."""
_AT_WORK = tuple(
    str(_PACKAGE / name) for name in ("data", "util/files.py", "training/checkpoint.py", "training/seal.py")
)
"""What in them waits for a disk at most."""
_LIBRARIES = (str(Path(os.__file__).parent), str(_PACKAGE))
"""Folders of code that is not the user's, beside installed packages."""


class Sign(NamedTuple):
    """A sign of life of one rank."""

    number: int
    """The first sign of a rank is 1."""
    step: int
    where: str
    """The place of its main thread: the innermost one in the user's code, if there is one."""
    waits: bool
    """Whether its main thread is where it may wait for others."""
    busy: bool = False
    """Whether it is at something that may take longer than a step: it compiles."""


class HangWatch:
    """Within it, a run that makes no step for ``timeout`` seconds is ended, with a message on standard error.

    Does nothing with one process, and where the processes were not started by torchrun or with its environment
    variables: they have no store that a thread may use beside PyTorch.

    Args:
        ranks: those that train together.
        timeout: seconds between two calls of :meth:`beat`. Those in which a rank is busy do not count.
        busy: tells whether this one is.
    """

    def __init__(self, ranks: Ranks, timeout: float, busy: Callable[[], bool] = lambda: False) -> None:
        self._ranks, self._timeout = ranks, timeout
        self._excuses = 0
        self._compiles = busy
        self._step, self._beaten = 0, time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self, step: int) -> None:
        """``step`` begins, or a part of what comes after it."""
        self._step, self._beaten = step, time.monotonic()

    @property
    def _busy(self) -> bool:
        return self._excuses > 0 or self._compiles()

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Within it, this rank is busy. It must not wait for others there: nobody would see that one of them hangs."""
        self._excuses += 1
        try:
            yield
        finally:
            self._excuses -= 1
            self.beat(self._step)

    def __enter__(self) -> Self:
        self.beat(self._step)
        store = _store() if self._ranks else None
        if store is not None:
            self._main = threading.get_ident()
            self._thread = threading.Thread(target=self._run, args=(store,), name="fastdat-hang", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, store: Any) -> None:
        pause = min(5.0, self._timeout / 8)
        prefix = f"fastdat/alive/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        seen: dict[int, tuple[Sign, float]] = {}
        count = 0
        while not self._over.wait(pause):
            count += 1
            with suppress(RuntimeError):  # the process that holds the store is gone; torchrun ends the others
                store.set(f"{prefix}/{self._ranks.rank}", json.dumps(self._sign(count)))
                for rank in range(self._ranks.size):
                    key = f"{prefix}/{rank}"
                    if store.check([key]):
                        sign = Sign(*json.loads(store.get(key)))
                        if rank not in seen or seen[rank][0].number != sign.number:
                            seen[rank] = sign, time.monotonic()
            now = time.monotonic()
            ages = {rank: (sign, now - at) for rank, (sign, at) in seen.items()}
            if self._busy or any(sign.busy and age <= 4 * pause for sign, age in ages.values()):
                self._beaten = now
            if now - self._beaten > self._timeout and not self._over.is_set():
                self._end(ages, 4 * pause)

    def _sign(self, count: int) -> Sign:
        frame = sys._current_frames().get(self._main)
        stack = traceback.extract_stack(frame) if frame is not None else traceback.StackSummary()
        innermost = stack[-1].filename if stack else ""
        waits = innermost.startswith(_WAITING) and not innermost.startswith(_AT_WORK)
        own = [
            frame
            for frame in stack
            if not (frame.filename.startswith(_LIBRARIES) or "site-packages" in frame.filename)
            and frame.name != "<module>"
        ]
        inner = stack[-1] if waits or not own else own[-1]
        place = "" if not stack else f"{inner.name} ({Path(inner.filename).name}, line {inner.lineno})"
        return Sign(count, self._step, place, waits, self._busy)

    def _end(self, signs: dict[int, tuple[Sign, float]], silent_after: float) -> None:
        text = described(signs, self._ranks.size, silent_after, self._timeout)
        with suppress(OSError):
            os.write(2, f"rank {self._ranks.rank}: {text}\n".encode())
        os._exit(STATUS)


def described(signs: dict[int, tuple[Sign, float]], size: int, silent_after: float, timeout: float) -> str:
    """Which rank hangs, in words.

    Args:
        signs: the last sign of each rank that gave any, and how many seconds ago it was seen.
        size: number of ranks.
        silent_after: seconds after which a rank is not alive.
        timeout: seconds without a step.
    """
    silent = [rank for rank in range(size) if rank not in signs or signs[rank][1] > silent_after]
    elsewhere = [rank for rank, (sign, _) in sorted(signs.items()) if not sign.waits and rank not in silent]
    if silent:
        cause = f"no sign of life from {_ranks(silent)}: the process or its machine has stopped"
    elif elsewhere:
        cause = f"{_ranks(elsewhere)} {'does' if len(elsewhere) == 1 else 'do'} not come to the next exchange"
    else:
        cause = "all ranks are inside an exchange or wait for their device"
    lines = [f"no step for {timeout:g} s (hang_timeout): {cause}. The run ends; the same command resumes it."]
    for rank in range(size):
        if rank not in signs:
            lines.append(f"  rank {rank}: never heard of")
            continue
        sign, age = signs[rank]
        ago = f", {age:.0f} s ago" if rank in silent else ""
        lines.append(f"  rank {rank}: at step {sign.step}, in {sign.where}{ago}")
    return "\n".join(lines)


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _store() -> Any | None:
    """A connection of its own to the store of the processes; None where there is none."""
    environment: dict[str, Any] = dict(os.environ)
    if not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return None
    try:
        return TCPStore(
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=10),
        )
    except (RuntimeError, ValueError):
        return None
