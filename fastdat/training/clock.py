"""How long training takes, over all the processes of a run."""

from __future__ import annotations

import time


class Clock:
    """Seconds of training, over all its processes, and steps a second since the last lap."""

    def __init__(self, done: int, before: float) -> None:
        self._before = before
        self._started = self._lap = time.monotonic()
        self._first = self._last = done
        self.fresh = True
        """No step of this process has been timed yet."""

    def start(self) -> None:
        self._started = self._lap = time.monotonic()

    def since_start(self) -> float:
        return time.monotonic() - self._started

    def seconds(self) -> float:
        return self._before + self.since_start()

    def lap(self, done: int) -> float:
        """Steps a second since the last lap; since the start where no step came since."""
        now = time.monotonic()
        self.fresh = False
        if done == self._last:
            return (done - self._first) / (now - self._started)
        rate = (done - self._last) / (now - self._lap)
        self._lap, self._last = now, done
        return rate

    def pause(self, seconds: float) -> None:
        """Leave these out of the running lap, and of the first step: they went into none."""
        self._lap += seconds
        if self.fresh:
            self._started += seconds

    def back_to(self, done: int) -> None:
        """The steps after ``done`` are to be made again."""
        self._lap, self._last = time.monotonic(), done
        self._first = min(self._first, done)
