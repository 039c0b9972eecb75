"""Requests to stop at the end of a step: Ctrl-C, or a scheduler's SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequests:
    """Within it, the first SIGINT or SIGTERM sets :attr:`requested` and prints a line; a second one interrupts at once.

    Does nothing outside the main thread, where Python cannot handle signals.

    Attributes:
        requested: name of the signal that asked to stop, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._outside: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._outside[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._outside.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
        # Directly to the descriptor: print may wait for a lock that the interrupted code holds.
        os.write(2, f"{self.requested}: stopping after this step; repeat to stop at once\n".encode())
