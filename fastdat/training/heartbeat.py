"""Says while a step is compiled that the run is alive, and for how long it has been compiling."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from fastdat.engine.announce import CompilationStarted, Event, ended, listening
from fastdat.training.recorder import Recorder


class Heartbeat:
    """Within it, each compilation is reported at its start, while it runs and at its end.

    Args:
        recorder: receives what is reported: the end for the screen and log.txt, all else for the screen.
        every: seconds between two reports of one compilation.
        clock: seconds.
    """

    def __init__(
        self, recorder: Recorder, every: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder, self._every, self._clock = recorder, every, clock
        self._beat: _Beat | None = None
        self._outside = ExitStack()

    def __enter__(self) -> Self:
        self._outside.enter_context(listening(self._hear))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._outside.close()
        self._stop()

    def _hear(self, event: Event) -> None:
        self._stop()
        if isinstance(event, CompilationStarted):
            self._recorder.progress(f"compiling {event.what} ...")
            self._beat = _Beat(self._reporter(event.what), self._every)
            self._beat.start()
        else:
            self._recorder.progress("")
            self._recorder.note(ended(event.what, event.seconds, event.succeeded))

    def _reporter(self, what: str) -> Callable[[], None]:
        since = self._clock()
        return lambda: self._recorder.progress(f"compiling {what} ... {self._clock() - since:.0f} s")

    def _stop(self) -> None:
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.stop()


class _Beat(threading.Thread):
    """Calls ``report`` every ``every`` seconds until it is stopped, or ``report`` fails."""

    def __init__(self, report: Callable[[], None], every: float) -> None:
        super().__init__(name="fastdat-heartbeat", daemon=True)
        self._report, self._every = report, every
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._report()
            except Exception:  # the screen is gone: the run itself will say so
                return

    def stop(self) -> None:
        """When it returns, nothing is reported any more."""
        self._over.set()
        if self.ident is not None:
            self.join()
