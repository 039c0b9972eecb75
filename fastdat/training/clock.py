"""How long training takes, over all processes of a run."""

from __future__ import annotations

import time


class Clock:
    """Seconds of training in all processes of a run, and steps per second since the last lap.

    Args:
        done: G steps done before this process.
        before: seconds of training before this process.

    Attributes:
        fresh: no step of this process has been timed yet.
    """

    def __init__(self, done: int, before: float) -> None:
        self._before = before
        self._started = self._lap = time.monotonic()
        self._first = self._last = done
        self.fresh = True

    def start(self) -> None:
        self._started = self._lap = time.monotonic()

    def since_start(self) -> float:
        return time.monotonic() - self._started

    def seconds(self) -> float:
        return self._before + self.since_start()

    def lap(self, done: int) -> float:
        """Steps per second since the last lap; since the start, if there was no step since the last lap."""
        now = time.monotonic()
        self.fresh = False
        if done == self._last:
            return (done - self._first) / (now - self._started)
        rate = (done - self._last) / (now - self._lap)
        self._lap, self._last = now, done
        return rate

    def pause(self, seconds: float) -> None:
        """Leave ``seconds`` that were not spent on steps out of this lap, and out of the first step."""
        self._lap += seconds
        if self.fresh:
            self._started += seconds

    def back_to(self, done: int) -> None:
        """Steps after ``done`` will be repeated: start a new lap there."""
        self._lap, self._last = time.monotonic(), done
        self._first = min(self._first, done)
