"""Rank 0 computes something that takes long, and the others wait for it with signs of life."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fastdat.util.ranks import Ranks

Result = TypeVar("Result")
PAUSE = 1.0
"""Seconds between two signs of life."""


def first_computes(compute: Callable[[], Result], alive: Callable[[], object], ranks: Ranks) -> Result:
    """What ``compute`` returns to rank 0, which alone calls it; an exception that it raises is raised by all ranks.

    Scores of 50,000 images may take many minutes on the single thread that torchrun gives each process. The others do
    not wait for them in one exchange, which cannot be told from a hanging one, but in one after the other.

    Args:
        compute: runs in a thread where there are several ranks. Its result must be picklable then.
        alive: called on every rank every :data:`PAUSE` seconds meanwhile; not with one rank.
        ranks: who waits.
    """
    if not ranks:
        return compute()
    task = _Task(compute) if ranks.first else None
    if task is not None:
        task.start()
    while not ranks.any(task is not None and task.ended(PAUSE)):
        ranks.together(alive)

    def result() -> Result:
        assert task is not None
        return task.result()

    return ranks.by_first(result)


class _Task(threading.Thread, Generic[Result]):
    """Computes in a thread that does not keep an interrupted process alive."""

    def __init__(self, compute: Callable[[], Result]) -> None:
        super().__init__(name="fastdat-scores", daemon=True)
        self._compute = compute
        self._found: list[Result] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._found.append(self._compute())
        except BaseException as error:  # raised again by result()
            self._error = error

    def ended(self, timeout: float) -> bool:
        """Whether it has ended, or ends within ``timeout`` seconds."""
        self.join(timeout)
        return not self.is_alive()

    def result(self) -> Result:
        """What was computed; raises what computing raised."""
        if self._error is not None:
            raise self._error
        return self._found[0]
