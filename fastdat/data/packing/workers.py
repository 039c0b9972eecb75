"""Processes that decode pieces ahead of the writer."""

from __future__ import annotations

import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import TypeVar

from fastdat.util.errors import DataError

_WAITING_BYTES = 2 << 30  # of decoded pieces that wait for the writer, at most
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

Task = TypeVar("Task")
Result = TypeVar("Result")


class DecodingPool:
    """Processes that run ahead of their consumer by a bounded number of results; results come in order.

    Args:
        workers: number of processes; None means one per core that this process may use, 0 means none.
        result_bytes: size of one result, which bounds how many may wait.
    """

    def __init__(self, workers: int | None, result_bytes: int) -> None:
        # A scheduler may have given this process only a few of the machine's cores.
        self._count = len(os.sched_getaffinity(0)) if workers is None else workers
        self._most_waiting = max(1, min(2 * self._count, _WAITING_BYTES // result_bytes))
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> DecodingPool:
        if self._count:
            # Spawned, not forked: this process may hold threads and open databases.
            self._processes = ProcessPoolExecutor(
                self._count, mp_context=get_context("spawn"), initializer=_die_with, initargs=(os.getpid(),)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], *, in_processes: bool = True
    ) -> Iterator[Result]:
        """Apply ``function`` to each task and yield the results in order.

        Args:
            function: a function that other processes can import.
            tasks: consumed only as far ahead as results may wait.
            in_processes: False runs the function here, which is faster for a single task.

        Raises:
            DataError: a process died.
        """
        if self._processes is None or not in_processes:
            yield from map(function, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._processes.submit(function, task))
                if len(waiting) > self._most_waiting:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a decoding process died. Either memory ran out (--workers 0 needs the least), or a script calls "
                'pack() without `if __name__ == "__main__":` around the call'
            ) from error


def _die_with(parent: int) -> None:
    """Have this process killed when ``parent`` ends, even by kill -9. Otherwise it would wait for work forever."""
    with suppress(OSError, AttributeError):  # exists on Linux only
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(1)
