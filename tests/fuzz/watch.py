"""Notice what a reader has no business to do: execute, import, connect, write or read elsewhere.

Python tells an audit hook of every such event (PEP 578), also of those in C code of the standard library. A hook cannot
be removed, so there is one in a process, which sleeps unless a :class:`Watch` is open.
"""

from __future__ import annotations

import os
import sys
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
        folder: files may be read below it.
        writable: files may be written below it; None forbids it.
        templates: whether code that jinja made of the package's own templates may run.
    """

    def __init__(self, folder: Path, writable: Path | None = None, templates: bool = False) -> None:
        self._folder, self._writable = str(folder), None if writable is None else str(writable)
        self._templates = templates
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
            where = self._writable if isinstance(flags, int) and flags & _WRITING else self._folder
            if not _below(path, where):
                self.found.append(f"open {path!r}")
        elif event.startswith(_CHANGES):
            paths = [path for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]]
            if not all(_below(path, self._writable) for path in paths):
                self.found.append(f"{event} {paths!r}")
        elif event.startswith(_EXECUTION + _NETWORK) and not (self._templates and _of_template(event, arguments)):
            self.found.append(f"{event} {str(arguments)[:200]}")


def _below(path: Any, folder: str | None) -> bool:
    if isinstance(path, int):
        return True  # a file that is open already
    return folder is not None and os.path.realpath(os.fspath(path)).startswith(os.path.realpath(folder))


def _of_template(event: str, arguments: tuple[Any, ...]) -> bool:
    file = str(getattr(arguments[0], "co_filename", "")) if event == "exec" and arguments else ""
    return "report/templates" in file or file == "<template>"


_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _open:
        watch.notice(event, arguments)
