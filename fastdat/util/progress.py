"""How far something is that takes long, in one line of text."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class ProgressText:
    """Words for several things that are done one after the other, with the time that the present one still takes.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what, self._first, self._since = "", 0, clock()

    def __call__(self, what: str, done: int, total: int, more: str = "") -> str:
        """``"fakes: 300 of 1,000 (30%), 0:01:10 left"``.

        Args:
            what: is done.
            done, total: how many of how many.
            more: stands after the percentage.
        """
        now = self._clock()
        if what != self._what or done < self._first:
            self._what, self._first, self._since = what, done, now
        rate = (done - self._first) / (now - self._since) if now > self._since else 0.0
        left = (
            f", {timedelta(seconds=round((total - done) / rate))} left" if rate > 0 and done < total else ""
        )
        return f"{what}: {done:,} of {total:,} ({100 * done // max(total, 1)}%{more}){left}"
