"""Writing a file so that no reader ever sees half of it."""

from __future__ import annotations

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
