"""Requests to stop at the end of a step: Ctrl-C, a scheduler's SIGTERM, or a terminal that is closed (SIGHUP)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from torch.utils.data import get_worker_info

from fastdat.engine.announce import CompilationStarted, Event, listening

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 10.0
"""Seconds that a compilation gets to end after SIGTERM or SIGHUP. Schedulers kill after 30."""

SAME_REQUEST = 2.0
"""Seconds in which SIGTERM or SIGHUP again is the same request: a scheduler sends it to each process of a job, and
torchrun passes on to its workers what it has got."""


class StoppedError(KeyboardInterrupt):
    """Training was asked to stop by SIGTERM or SIGHUP.

    Attributes:
        signal: which of them.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


class StopRequests:
    """Within it, the first signal of :data:`SIGNALS` sets :attr:`requested` and prints a line; a second one interrupts
    at once, and so does the first one while a step is compiled, which may take minutes. SIGTERM or SIGHUP again within
    :data:`SAME_REQUEST` is no second one.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Outside the main thread, where Python cannot
    handle signals, nothing is done, and neither in a process that is forked meanwhile. A DataLoader's worker ignores
    SIGINT and SIGHUP, which a terminal sends to it too: its end would be an error before the checkpoint.

    Attributes:
        requested: the signal that asked to stop, or None.
        compiling: whether a step is compiled now.
        in_compilation: whether a compilation was interrupted.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.compiling = self.in_compilation = False
        self._asked_at = 0.0
        self._outside: dict[int, Any] = {}
        self._process = 0
        self._contexts = ExitStack()

    def __enter__(self) -> Self:
        self._process = os.getpid()
        self._contexts.enter_context(listening(self._hear))
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # None: a handler that Python does not know, and could not put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._outside[number] = signal.signal(number, self._handle)
            self._contexts.enter_context(_Watcher(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._contexts.close()
        finally:
            for number, handler in self._outside.items():
                signal.signal(number, handler)

    def join(self, requested: Sequence[signal.Signals | None]) -> None:
        """Requests to the processes of the run, by rank: the first of them is one to this process, too."""
        if self.requested is None:
            self._request(next((number for number in requested if number is not None), None))

    def raise_if_requested(self) -> None:
        """Raise :class:`StoppedError` after a request; after Ctrl-C, KeyboardInterrupt, as Python itself does."""
        if self.requested is not None:
            raise KeyboardInterrupt if self.requested is signal.SIGINT else StoppedError(self.requested)

    def told(self, done: int, saved: int | None, *, scoring: bool) -> str:
        """How a run ended that was asked to stop, and where the same command goes on.

        Args:
            done: G steps done.
            saved: step of the last checkpoint; None if there is none.
            scoring: whether it was being scored.
        """
        name = self.requested.name if self.requested else "an interrupt"
        where = " while scoring" if scoring else " while compiling" if self.in_compilation else ""
        again = "run the same command again to resume"
        if saved is None:
            again += " from the beginning: there is no checkpoint yet"
        elif saved != done:
            again += f" from step {saved}"
        return f"stopped by {name}{where} after {done} steps; {again}"

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            if number != signal.SIGTERM and get_worker_info() is not None:
                return  # of a DataLoader, which ends its workers itself
            # Another forked process, which ends as it would without this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received, again = signal.Signals(number), self.requested is not None
        if self._is_same(received):
            return
        self._request(received)
        if again or self.compiling:
            self._stop_now()
        _say(f"{received.name}: stopping after this step; repeat to stop at once\n")

    def _request(self, number: signal.Signals | None) -> None:
        self.requested, self._asked_at = number, time.monotonic()

    def _is_same(self, received: signal.Signals) -> bool:
        """Whether it is the request that there is already. Ctrl-C is not: torchrun's workers get it once, since they
        have no terminal. A compilation is asked again by :class:`_Watcher`."""
        return (
            received is self.requested
            and received is not signal.SIGINT
            and not self.compiling
            and time.monotonic() - self._asked_at < SAME_REQUEST
        )

    def _hear(self, event: Event) -> None:
        self.compiling = isinstance(event, CompilationStarted)
        if self.compiling and self.requested is not None:
            self._stop_now()

    def _stop_now(self) -> None:
        self.in_compilation = self.compiling
        self.raise_if_requested()


_ATTEMPTS = 4


class _Watcher(threading.Thread):
    """Ends the process when a compilation does not end within :data:`PATIENCE` after SIGTERM or SIGHUP.

    Python runs a signal's handler in the main thread, which may wait in C++ for a compilation in another thread, as
    autograd's for a GPU is. Files are written whole or not at all, so that the last checkpoint stays intact.
    """

    def __init__(self, requests: StopRequests) -> None:
        super().__init__(name="fastdat-stop", daemon=True)
        self._requests = requests
        self._main, self._over = threading.get_ident(), threading.Event()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def __enter__(self) -> Self:
        self._outside = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        _WATCHING.add(self._write)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._outside)
        _WATCHING.discard(self._write)
        self._over.set()
        with suppress(BlockingIOError):  # the pipe is full: the thread has something to wake for
            os.write(self._write, b"\0")  # not by closing: a forked process may hold a copy of this end
        self.join()
        os.close(self._write)
        os.close(self._read)

    def run(self) -> None:
        while received := os.read(self._read, 1):
            if self._over.is_set():
                return
            if received[0] not in (signal.SIGTERM, signal.SIGHUP):
                continue
            for _ in range(_ATTEMPTS):
                if self._over.wait(PATIENCE / _ATTEMPTS) or not self._requests.compiling:
                    break
                # What the handler raised may have been caught by someone.
                signal.pthread_kill(self._main, received[0])
            else:
                _say("the compilation does not end: ending the process\n")
                os._exit(128 + received[0])


_WATCHING: set[int] = set()
"""The wakeup descriptors of this process."""


def _stop_watching() -> None:
    """In a forked process, whose signals are none of the watcher's."""
    if _WATCHING and threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for descriptor in _WATCHING:
            os.close(descriptor)
    _WATCHING.clear()


os.register_at_fork(after_in_child=_stop_watching)


def _say(text: str) -> None:
    """Directly to the descriptor: print may wait for a lock that the interrupted code holds. The screen may be gone."""
    with suppress(OSError):
        os.write(2, text.encode())
