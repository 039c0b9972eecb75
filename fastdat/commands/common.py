"""What the commands share: groups, a progress line, and errors as messages."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import typer

from fastdat.util.progress import ProgressText


def new_group(help: str, *, completion: bool = False) -> typer.Typer:
    """A group of commands. Unexpected errors have plain tracebacks; for the user's mistakes see :func:`user_errors`.

    Args:
        help: what the commands are for.
        completion: offer ``--install-completion`` and ``--show-completion`` for the user's shell.
    """
    return typer.Typer(
        help=help, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=completion
    )


class ProgressLine:
    """Shows progress on standard error: one line that is rewritten on a terminal, elsewhere a line every 10 s.

    Args:
        patience: seconds in which nothing is shown: what is done by then needs no progress.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._shown = time.monotonic()
        self._silent_until = self._shown + patience
        self._text = ProgressText()

    def __call__(self, what: str, done: int, total: int, more: str = "") -> None:
        """Show that ``done`` of ``total`` are done; ``what`` names them, ``more`` follows the percentage."""
        now, live = time.monotonic(), sys.stderr.isatty()
        line = self._text(what, done, total, more)
        if now < self._silent_until or (not live and now - self._shown < 10 and done < total):
            return
        self._shown = now
        end = "" if live and done < total else "\n"
        print(f"\r\x1b[K{line}" if live else line, end=end, file=sys.stderr, flush=True)


#: The extras of fastdat, and the packages of each that a command may miss.
_EXTRAS = {
    "train": (
        "PIL",
        "jinja2",
        "lmdb",
        "markupsafe",
        "matplotlib",
        "rich",
        "safetensors",
        "tensorboard",
        "torch_fidelity",
        "yaml",
    ),
    "export": ("onnx", "onnxruntime", "onnxscript"),
}


def listed(text: str | None) -> list[str] | None:
    """The parts of ``"fid, kid"``; None if the option is not given."""
    return None if text is None else [part.strip() for part in text.split(",")]


@contextmanager
def in_options(section: str, options: Mapping[str, str]) -> Iterator[None]:
    """Within it, errors about settings name the options of the command: ``--splits train`` for
    ``eval.splits=["train"]``.

    Args:
        section: of the settings: ``"eval"``.
        options: setting -> option: ``{"splits": "--splits"}``. Others keep their names.
    """

    def named(found: re.Match[str]) -> str:
        option = options.get(found["name"])
        if option is None:
            return found[0]
        value = "" if found["list"] is None else re.sub(r"[][\s\"']", "", found["list"])
        return option + (" " + value if found["is"] else "")

    try:
        yield
    except ValueError as error:
        pattern = rf"\b{section}\.(?P<name>\w+)(?P<is>=(?P<list>\[[^]]*\])?)?"
        error.args = tuple(
            re.sub(pattern, named, part) if isinstance(part, str) else part for part in error.args
        )
        raise


@contextmanager
def user_errors() -> Iterator[None]:
    """Within it, errors that the user can correct are printed as one message without a traceback. Exit code 2.

    The exit code is 1 for a run that produced NaN or lost one of its processes, 130 for an interrupt and 128 plus its
    number for another signal that asked to stop. Any other error keeps its traceback. Where several processes have the
    same error, rank 0 prints it.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        with suppress(OSError):  # the terminal may be gone
            typer.echo("interrupted" if number == signal.SIGINT else f"stopped by {number.name}", err=True)
        raise typer.Exit(128 + number) from error
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        typer.echo(f'error: this command needs {error.name}: pip install "fastdat[{extra}]"', err=True)
        raise typer.Exit(2) from error
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        if not getattr(error, "said_by_rank_0", False):
            notes = getattr(error, "__notes__", [])  # which rank raised it, for example
            typer.echo("\n".join([f"error: {error}", *notes]), err=True)
        raise typer.Exit(code) from error


def _exit_code(error: Exception) -> int | None:
    from fastdat.util.errors import (
        ConfigError,
        DataError,
        LostRankError,
        NonFiniteError,
        ReportError,
        RunFolderError,
    )

    if isinstance(error, (NonFiniteError, LostRankError)):
        return 1
    return 2 if isinstance(error, (ConfigError, DataError, ReportError, RunFolderError)) else None
