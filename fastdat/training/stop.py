"""Requests to stop at the end of a step: Ctrl-C, a scheduler's SIGTERM, or a terminal that is closed (SIGHUP)."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
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
    handle signals, nothing is done.

    Attributes:
        requested: the signal that asked to stop, or None.
        compiling: whether a step is compiled now.
        in_compilation: whether a compilation was interrupted.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.compiling = self.in_compilation = False
        self._outside: dict[int, Any] = {}
        self._contexts = ExitStack()

    def __enter__(self) -> Self:
        self._contexts.enter_context(listening(self._hear))
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._outside[number] = signal.signal(number, self._handle)
            self._contexts.enter_context(_Watcher(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._contexts.close()
        for number, handler in self._outside.items():
            signal.signal(number, handler)

    def raise_if_requested(self) -> None:
        """Raise :class:`StoppedError` after a request; after Ctrl-C, KeyboardInterrupt, as Python itself does."""
        if self.requested is not None:
            raise KeyboardInterrupt if self.requested is signal.SIGINT else StoppedError(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested is not None, signal.Signals(number)
        if again or self.compiling:
            self._stop_now()
        # Directly to the descriptor: print may wait for a lock that the interrupted code holds.
        os.write(2, f"{self.requested.name}: stopping after this step; repeat to stop at once\n".encode())

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
    autograd's for a GPU is. Files are written whole or not at all, so that nothing is lost.
    """

    def __init__(self, requests: StopRequests) -> None:
        super().__init__(name="fastdat-stop", daemon=True)
        self._requests = requests
        self._main, self._over = threading.get_ident(), threading.Event()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def __enter__(self) -> Self:
        self._outside = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._outside)
        self._over.set()
        os.close(self._write)  # wakes the thread
        self.join()
        os.close(self._read)

    def run(self) -> None:
        while received := os.read(self._read, 1):
            if received[0] not in (signal.SIGTERM, signal.SIGHUP):
                continue
            for _ in range(_ATTEMPTS):
                if self._over.wait(PATIENCE / _ATTEMPTS) or not self._requests.compiling:
                    break
                # What the handler raised may have been caught by someone.
                signal.pthread_kill(self._main, received[0])
            else:
                os.write(2, b"the compilation does not end: ending the process\n")
                os._exit(128 + received[0])
