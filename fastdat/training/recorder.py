"""Everything a run reports, in one place: to the screen, log.txt, stats.jsonl, metrics.jsonl, PNGs and a logger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from fastdat.metrics.evaluators import shown
from fastdat.training.display import Display, summarise
from fastdat.training.events import Events
from fastdat.training.png import picture
from fastdat.training.run_folder import RunFolder
from fastdat.training.train_config import TrainConfig
from fastdat.training.wandb_logger import WandbLogger
from fastdat.util.run_layout import TENSORBOARD


class Logger(Protocol):
    """Sends reports to a program that draws them."""

    def stats(self, stats: Mapping[str, float]) -> None:
        """The numbers of one line of stats.jsonl."""
        ...

    def metrics(self, record: Mapping[str, Any]) -> None:
        """The scores of one line of metrics.jsonl."""
        ...

    def samples(self, step: int, png: bytes) -> None:
        """A sample grid."""
        ...

    def rewind(self, step: int) -> None:
        """What was reported of steps after ``step`` no longer counts: these steps will be repeated."""
        ...

    def flush(self) -> None:
        """Put everything on the disk; a checkpoint relies on it."""
        ...

    def close(self) -> None:
        """The end of the run; raises nothing."""
        ...


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
        self._logger: Logger | None = None

    @property
    def every(self) -> float:
        """Seconds between two reports of a progress."""
        return self._display.every

    def open_logger(self, config: TrainConfig, done: int) -> None:
        """Report to ``config.logger`` too, from now on; what it has of steps after ``done`` no longer counts.

        Raises:
            ConfigError: the logger cannot begin.
        """
        if config.logger == "tensorboard":
            self._logger = Events(self._folder.path / TENSORBOARD, done)
        elif config.logger == "wandb":
            self._logger = WandbLogger(self._folder.path, config.recorded(), self.note)

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
        if self._logger is not None:
            self._logger.stats(stats)
        line = summarise(stats, self._steps)
        self.log(line)
        self._display.stats(line)

    def scores(self, record: Mapping[str, Any]) -> None:
        """A record of scores: one line of metrics.jsonl."""
        self._folder.append_metrics(record)
        if self._logger is not None:
            self._logger.metrics(record)
        self.note(shown(dict(record)))

    def samples(self, done: int, samples: Tensor) -> None:
        """Generated images (N, C, H, W) in [-1, 1], or points (N, 2)."""
        png = picture(samples)
        path = self._folder.write_samples(done, png)
        if self._logger is not None:
            self._logger.samples(done, png)
        self.log(f"wrote {path}")

    def reals(self, reals: Tensor) -> None:
        """Reals to compare the samples with, of the same shape."""
        self._folder.write_reals(picture(reals))

    def rewind(self, done: int, *, scored: bool) -> None:
        """Drop what was recorded after ``done`` steps; the scores of ``done`` itself too, unless it was ``scored``."""
        self._folder.rewind(done, scored=scored)
        if self._logger is not None:
            self._logger.rewind(done)

    def flush(self) -> None:
        """Put on the disk what a checkpoint that was just written relies on."""
        if self._logger is not None:
            self._logger.flush()

    def close(self) -> None:
        """Close the logger; raises nothing."""
        if self._logger is not None:
            self._logger.close()
