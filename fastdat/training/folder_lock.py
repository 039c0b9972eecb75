"""The lock of a run folder: one process trains in it at a time."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastdat.util import files
from fastdat.util.errors import RunFolderError
from fastdat.util.run_layout import LOCK

_locks: set[int] = set()  # descriptors of the locks that this process holds


def lock_folder(folder: Path, owner: Any) -> weakref.finalize[[int], Any]:
    """Lock ``folder`` until the returned finalizer is called, ``owner`` is deleted, or the process ends.

    Raises:
        RunFolderError: another process holds the lock.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    if files.lock(descriptor) is False:
        os.close(descriptor)
        raise RunFolderError(f"another process, or another Trainer of this one, is training in {folder}")
    _locks.add(descriptor)
    return weakref.finalize(owner, _unlock, descriptor)


def _unlock(descriptor: int) -> None:
    if descriptor in _locks:  # false in a forked process, which must leave its parent's lock alone
        with suppress(OSError):
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # a process that is being forked may hold a copy for a moment
        _forget(descriptor)


def _forget(descriptor: int) -> None:
    _locks.remove(descriptor)
    os.close(descriptor)


def _forget_all() -> None:
    """In a forked process, such as a DataLoader's worker, which may outlive a killed parent by seconds."""
    for descriptor in list(_locks):
        _forget(descriptor)


os.register_at_fork(after_in_child=_forget_all)
