"""Who checks a store together, of the processes that train together.

Processes of one machine that have opened the same file check it together, each a part. Where every machine has a copy
of its own, every copy is checked whole.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fastdat.util.ranks import Ranks

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def sharers(ranks: Ranks, descriptor: int) -> list[int]:
    """The ranks that have opened the same file on the same machine, this one included.

    Args:
        ranks: all must call this.
        descriptor: the open file.
    """
    places = ranks.all_of(_place(descriptor))
    return [rank for rank, place in enumerate(places) if place == places[ranks.rank]]


def _place(descriptor: int) -> tuple[str, int, int]:
    """The machine and the file. A machine is known by a number that it draws when it starts: names may be equal."""
    machine = _BOOT_ID.read_text() if _BOOT_ID.exists() else socket.gethostname()
    status = os.fstat(descriptor)
    return machine, status.st_dev, status.st_ino
