"""Requests to stop at the end of a step: Ctrl-C, a scheduler's SIGTERM, or a terminal that is closed (SIGHUP)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from fastdat.engine.announce import CompilationStarted, Event, listening

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 10.0
"""Seconds that a compilation gets to end after SIGTERM or SIGHUP. Schedulers kill after 30."""


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
    at once, and so does the first one while a step is compiled, which may take minutes.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Outside the main thread, where Python cannot
    handle signals, nothing is done, and neither in a process that is forked meanwhile, such as a DataLoader's worker.

    Attributes:
        requested: the signal that asked to stop, or None.
        compiling: whether a step is compiled now.
        in_compilation: whether a compilation was interrupted.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.compiling = self.in_compilation = False
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
            self.requested = next((number for number in requested if number is not None), None)

    def raise_if_requested(self) -> None:
        """Raise :class:`StoppedError` after a request; after Ctrl-C, KeyboardInterrupt, as Python itself does."""
        if self.requested is not None:
            raise KeyboardInterrupt if self.requested is signal.SIGINT else StoppedError(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked process, which ends as it would without this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again, self.requested = self.requested is not None, signal.Signals(number)
        if again or self.compiling:
            self._stop_now()
        _say(f"{self.requested.name}: stopping after this step; repeat to stop at once\n")

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
