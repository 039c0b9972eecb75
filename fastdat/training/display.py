"""Shows a run while it runs: a progress bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

from fastdat.training.tags import own


class Display(Protocol):
    """Shows a run; a context manager around it."""

    every: float
    """Seconds between two reports of a progress."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """Show a message on a line of its own."""
        ...

    def progress(self, text: str) -> None:
        """Show how something that takes long goes on, in place of what was shown before; ``""`` at its end. Called by
        any thread."""
        ...

    def advance(self, done: int) -> None:
        """``done`` G steps are done; called after each step."""
        ...

    def stats(self, summary: str) -> None:
        """Show the latest numbers, from :func:`summarise`."""
        ...


class Nothing:
    """Shows nothing: the display of a process beside the one that reports the run."""

    every = 15.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def progress(self, text: str) -> None:
        pass

    def advance(self, done: int) -> None:
        pass

    def stats(self, summary: str) -> None:
        pass


class Lines:
    """Prints one line per message and per set of numbers, each at once."""

    every = 15.0

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def note(self, text: str) -> None:
        with suppress(OSError):  # the screen or the reader of the pipe is gone: the run goes on without it
            print(text, file=self._file, flush=True)

    def progress(self, text: str) -> None:
        if text:
            self.note(text)

    def advance(self, done: int) -> None:
        return None

    def stats(self, summary: str) -> None:
        self.note(summary)


class Bar:
    """A progress bar with the latest numbers beside it; messages scroll above it."""

    every = 1.0

    def __init__(self, steps: int, console: Console) -> None:
        # Twice a second is enough for the eye and costs nothing, even on few cores.
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[progress]}{task.fields[summary]}"),
            console=console,
            refresh_per_second=2,
        )
        self._task = self._progress.add_task("train", total=steps, progress="", summary="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the screen is gone
            self._progress.stop()

    def note(self, text: str) -> None:
        with suppress(OSError):
            self._progress.console.print(text, markup=False, highlight=False)

    def progress(self, text: str) -> None:
        self._progress.update(self._task, progress=f"{text}  " if text else "")

    def advance(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def stats(self, summary: str) -> None:
        self._progress.update(
            self._task, summary=summary.partition("  ")[2]
        )  # the bar already shows the step


def display_for(steps: int) -> Display:
    """A bar if standard output is a terminal; lines if it is a file, a pipe or CI."""
    console = Console()
    # Not console.is_terminal: with FORCE_COLOR, which CI sets, rich takes a pipe for a terminal.
    live = sys.stdout.isatty() and not console.is_dumb_terminal
    return Bar(steps, console) if live else Lines()


_SHORT = {
    "loss_d": "loss D {:.3f}",
    "loss_g": "G {:+.3f}",
    "logits_real": "D(x) {:+.2f}",
    "logits_fake": "D(G(z)) {:+.2f}",
    "delta_rms_fake": "delta {:.2g}",
    "it_per_s": "{:.3g} it/s",
}


def summarise(stats: Mapping[str, float], steps: int) -> str:
    """The most important numbers in one line: ``step 50/1000  loss D 1.9  ...  2.1 it/s  ETA 0:07:32``.

    Those of a user's callbacks are among them, with their names.
    """
    left = (steps - stats["step"]) / stats["it_per_s"]
    shown = [text.format(stats[key]) for key, text in _SHORT.items() if key in stats]
    measured = [f"{name} {value:.4g}" for name, value in own(stats).items()]
    eta = f"ETA {timedelta(seconds=round(left))}"
    return "  ".join([f"step {stats['step']}/{steps}", *shown, *measured, eta])
