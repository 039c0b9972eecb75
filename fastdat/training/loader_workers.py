"""Worker processes of a ``DataLoader``: requests to stop are left to the process that trains."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from fastdat.training.stop import SIGNALS


class LoaderWorkers:
    """Makes the iterators of a loader. The signals of :data:`fastdat.training.stop.SIGNALS` do not end its workers.

    A terminal sends a signal to all processes that it started, torchrun to all processes of a rank. Where a worker dies
    of it, torch raises an error in the process that trains, before that has written its checkpoint.

    Persistent workers stay as torch makes them: torch ends them by SIGTERM, and only by that.
    """

    def __init__(self) -> None:
        self._processes: set[BaseProcess] = set()

    def iterate(self, loader: Iterable[Any]) -> Iterator[Any]:
        """``iter(loader)``."""
        if not isinstance(loader, DataLoader) or not loader.num_workers or loader.persistent_workers:
            return iter(loader)
        before, own = set(active_children()), loader.worker_init_fn
        loader.worker_init_fn = _WithoutSignals(own)
        try:
            return iter(loader)
        finally:
            loader.worker_init_fn = own
            self._processes = (self._processes & before) | (set(active_children()) - before)

    def close(self) -> None:
        """End the workers that are left when their iterator is gone: they hang, and ignore torch's SIGTERM."""
        for process in self._processes & set(active_children()):
            process.kill()
        self._processes = set()


class _WithoutSignals:
    """A ``worker_init_fn`` that calls the user's own; a class, since spawned workers get it as a pickle."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self._then = then

    def __call__(self, worker: int) -> None:
        for number in SIGNALS:
            # A function: programs that the user's data set starts would inherit SIG_IGN.
            signal.signal(number, _do_nothing)
        if self._then is not None:
            self._then(worker)


def _do_nothing(number: int, frame: object) -> None:
    pass
