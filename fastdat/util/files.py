"""Files that several processes use: written whole or not at all, and locked."""

from __future__ import annotations

import fcntl
import io
import os
from pathlib import Path

from fastdat.util.errors import RunFolderError


def write_atomically(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write ``content`` to a file beside ``path``, then move it there in one step.

    Args:
        path: where the content belongs.
        content: the whole file.
        flush: wait until the disk has the content, so that a power cut leaves the old file or the new one. For many
            files that can be made again, the waiting takes longer than everything else.
    """
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_output(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write a file that a user asked for; folders that it needs are made. Arguments as in :func:`write_atomically`.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, flush=flush)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error


def temporary_of(path: Path) -> Path:
    """The file beside ``path`` that is written first and then moved to ``path``."""
    return path.with_name(f".{path.name}.tmp")


def append_line(path: Path, line: str) -> None:
    """Append ``line`` whole or not at all; half a line that a kill or a full disk left at the end is dropped.

    Raises:
        OSError: the line cannot be written; the file ends with its last whole line.
    """
    # Opened for each line, without a buffer: a killed process leaves whole lines, and no handle stays open.
    with path.open("a+b", buffering=0) as file:
        end = _end_of_lines(file)
        # A path that is no UTF-8 is in Python's text by lone surrogates, which no encoding takes.
        rest = memoryview((line + "\n").encode(errors="backslashreplace"))
        try:
            file.truncate(end)
            while rest:  # a full disk writes a part of the line and reports no error
                rest = rest[file.write(rest) or 0 :]
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: io.FileIO) -> int:
    """Position after the last newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder for this process, until it is closed or the process ends, for whatever reason.

    Returns:
        True if it is locked now, False if another process has it, None if the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
