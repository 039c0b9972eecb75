"""What the commands share: how they look, and how mistakes are told."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer


def new_group(help: str) -> typer.Typer:
    """A group of commands. Plain tracebacks for what is unexpected; what is the user's to mend: :func:`user_errors`."""
    return typer.Typer(help=help, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


class ProgressLine:
    """Shows work that takes a while, on standard error: a line that is rewritten on a terminal, else one every 10 s."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def __call__(self, what: str, done: int, total: int, more: str = "") -> None:
        """``done`` of ``total`` ``what``; ``more`` is added to it."""
        now, live = time.monotonic(), sys.stderr.isatty()
        if not live and now - self._shown < 10 and done < total:
            return
        self._shown = now
        line = f"{what}: {done:,} of {total:,} ({100 * done // total}%{more})"
        end = "" if live and done < total else "\n"
        print(f"\r\x1b[K{line}" if live else line, end=end, file=sys.stderr, flush=True)


@contextmanager
def user_errors() -> Iterator[None]:
    """Within it, what the user can mend is printed as one message, without a traceback. Exit code 2.

    A run that broke down with NaN is exit code 1; an interrupted one 130. Any other error keeps its traceback.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (
            "PIL",
            "jinja2",
            "lmdb",
            "markupsafe",
            "matplotlib",
            "rich",
            "tensorboard",
            "torch_fidelity",
            "yaml",
        ):
            raise
        typer.echo(f'error: this command needs {error.name}: pip install "fastdat[train]"', err=True)
        raise typer.Exit(2) from error
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code) from error


def _exit_code(error: Exception) -> int | None:
    from fastdat.util.errors import ConfigError, DataError, NonFiniteError, ReportError, RunFolderError

    if isinstance(error, NonFiniteError):
        return 1
    return 2 if isinstance(error, (ConfigError, DataError, ReportError, RunFolderError)) else None
