"""Files that several processes use: written so that no reader ever sees half of one, and locked."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write ``content`` beside ``path``, then put it in its place in one move.

    ``flush``: wait until the disk has it, so that a power cut leaves the old file or the new one. Where many files are
    written that can be made again, this takes longer than all the rest.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder for this process, until it is closed or the process ends, however that does.

    Returns:
        True; False where another process has it; None on a file system without locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
