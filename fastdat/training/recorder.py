"""Everything a run reports, in one place: to the screen, log.txt, stats.jsonl, metrics.jsonl, PNGs and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastdat.metrics.evaluators import shown
from fastdat.training.display import Display, summarise
from fastdat.training.events import Events
from fastdat.training.png import picture
from fastdat.training.run_folder import RunFolder
from fastdat.util.run_layout import TENSORBOARD


class Recorder:
    """Sends each report of a run to all places where it belongs.

    Args:
        folder: the run folder.
        display: the screen.
        steps: G steps in total, for the progress that is shown.

    Raises:
        RunFolderError: here and below, a file cannot be written.
    """

    def __init__(self, folder: RunFolder, display: Display, steps: int) -> None:
        self._folder, self._display, self._steps = folder, display, steps
        self._events: Events | None = None

    @property
    def every(self) -> float:
        """Seconds between two reports of a progress."""
        return self._display.every

    def open_events(self, done: int) -> None:
        """Write TensorBoard events too, from now on; earlier events of steps after ``done`` no longer count."""
        self._events = Events(self._folder.path / TENSORBOARD, done)

    def note(self, text: str) -> None:
        """A message for the screen and log.txt."""
        self.log(text)  # first: the screen may be gone
        self._display.note(text)

    def log(self, text: str) -> None:
        """A message for log.txt alone."""
        self._folder.append_log(text)

    def progress(self, text: str) -> None:
        """How something that takes long goes on, for the screen alone; ``""`` at its end. Called by any thread."""
        self._display.progress(text)

    def advance(self, done: int) -> None:
        """``done`` G steps are done; called after each of them."""
        self._display.advance(done)

    def stats(self, done: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a line of stats.jsonl, which get six significant digits."""
        stats = {"step": done, **{name: float(f"{value:.6g}") for name, value in numbers.items()}}
        self._folder.append_stats(stats)
        if self._events is not None:
            self._events.stats(stats)
        line = summarise(stats, self._steps)
        self.log(line)
        self._display.stats(line)

    def scores(self, record: Mapping[str, Any]) -> None:
        """A record of scores: one line of metrics.jsonl."""
        self._folder.append_metrics(record)
        if self._events is not None:
            self._events.metrics(record)
        self.note(shown(dict(record)))

    def samples(self, done: int, samples: Tensor) -> None:
        """Generated images (N, C, H, W) in [-1, 1], or points (N, 2)."""
        png = picture(samples)
        path = self._folder.write_samples(done, png)
        if self._events is not None:
            self._events.samples(done, png)
        self.log(f"wrote {path}")

    def reals(self, reals: Tensor) -> None:
        """Reals to compare the samples with, of the same shape."""
        self._folder.write_reals(picture(reals))

    def rewind(self, done: int, *, scored: bool) -> None:
        """Drop what was recorded after ``done`` steps; the scores of ``done`` itself too, unless it was ``scored``."""
        self._folder.rewind(done, scored=scored)
        if self._events is not None:
            self._events.rewind(done)

    def flush(self) -> None:
        """Put on the disk what a checkpoint that was just written relies on."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Close the event file; raises nothing."""
        if self._events is not None:
            self._events.close()
