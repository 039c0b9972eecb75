"""The check of a store, shared out among the processes that train together.

Processes of one machine that have opened the same file check it together, each a part. Where every machine has a copy
of its own, every copy is checked whole.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fastdat.util.errors import DataError
from fastdat.util.ranks import Ranks

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def sharers(ranks: Ranks, descriptor: int | None) -> list[int]:
    """The ranks that have opened the same file on the same machine, this one included.

    Args:
        ranks: all must call this.
        descriptor: the open file; None on a rank that could not open it, which then shares with nobody.
    """
    places = ranks.all_of(None if descriptor is None else _place(descriptor))
    here = places[ranks.rank]
    if here is None:
        return [ranks.rank]
    return [rank for rank, place in enumerate(places) if place == here]


def agree(ranks: Ranks, problem: DataError | None) -> None:
    """Return if no rank has a problem.

    Raises:
        DataError: the first rank's that has one, on all ranks; with several ranks it says whose it is.
    """
    for rank, (found, machine) in enumerate(ranks.all_of((problem, socket.gethostname()))):
        if found is not None and ranks:
            raise type(found)(f"{found} (found by rank {rank} on {machine})") from problem
        if found is not None:
            raise found


def _place(descriptor: int) -> tuple[str, int, int]:
    """The machine and the file. A machine is known by a number that it draws when it starts: names may be equal."""
    machine = _BOOT_ID.read_text() if _BOOT_ID.exists() else socket.gethostname()
    status = os.fstat(descriptor)
    return machine, status.st_dev, status.st_ino
