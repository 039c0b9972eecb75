"""Notice what a reader has no business to do: execute, import, connect, write or read elsewhere.

Python tells an audit hook of every such event (PEP 578), also of those in C code of the standard library. A hook cannot
be removed, so there is one in a process, which sleeps unless a :class:`Watch` is open.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Events that mean execution, or the preparation of it.
_EXECUTION = (
    "code.__new__", "cpython.", "ctypes.", "exec", "function.__new__", "import", "marshal.", "os.exec", "os.fork",
    "os.kill", "os.posix_spawn", "os.putenv", "os.spawn", "os.startfile", "os.system", "pickle.find_class", "pty.",
    "signal.pthread_kill", "subprocess.", "sys.setprofile", "sys.settrace", "sys._current_frames", "webbrowser.",
)  # fmt: skip
_NETWORK = ("ftplib.", "http.", "imaplib.", "smtplib.", "socket.", "ssl.", "telnetlib.", "urllib.")
#: Events that change files; their first arguments are paths.
_CHANGES = ("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
            "os.truncate", "os.utime", "shutil.")  # fmt: skip

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_open: list[Watch] = []


class Watch:
    """A context in which forbidden events are collected.

    Args:
        folder: files may be read and written below it, and nowhere else.
        reads: parts of the paths of other files that may be read, and whose code may run: templates.
    """

    def __init__(self, folder: Path, reads: Sequence[str] = ()) -> None:
        self._folder, self._reads = os.path.realpath(folder), tuple(reads)
        self.found: list[str] = []
        """The forbidden events, in words."""

    def __enter__(self) -> Watch:
        _install()
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)

    def notice(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Collect the event if it is forbidden. Raises nothing: a reader might catch it."""
        if event == "open":
            path, _, flags = arguments
            if not self._inside(path) and not (self._may_read(path) and not flags & _WRITING):
                self.found.append(f"open {arguments[0]!r}")
        elif event.startswith(_CHANGES):
            paths = arguments[: 2 if event in ("os.rename", "os.link") else 1]
            if not all(map(self._inside, paths)):
                self.found.append(f"{event} {paths!r}")
        elif event.startswith(_EXECUTION + _NETWORK) and not self._of_template(event, arguments):
            self.found.append(f"{event} {str(arguments)[:200]}")

    def _inside(self, path: Any) -> bool:
        """Whether a path lies in the folder; a file that is open already, as a number, lay there."""
        if isinstance(path, int):
            return True
        return (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(self._folder + os.sep)

    def _may_read(self, path: Any) -> bool:
        return any(part in str(path) for part in self._reads)

    def _of_template(self, event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "exec" and self._may_read(getattr(arguments[0], "co_filename", ""))


_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _open:
        watch.notice(event, arguments)
