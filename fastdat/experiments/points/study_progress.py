"""Shows how a study on Gaussian mixtures goes on."""

from __future__ import annotations

import time
from datetime import timedelta

from fastdat.experiments.points.study import Measurement, Study
from fastdat.training.display import display_for


class StudyProgress:
    """Shows how many iterations of all arms are done, and the latest number of modes found."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._total = len(study.arms) * study.iterations
        self.display = display_for(self._total)
        self._before = -study.iterations  # iterations of the earlier arms
        self._trained = 0  # iterations of this process: what earlier ones did says nothing about its speed
        self._here = 0  # of the current arm
        self._arm = ""
        self._start = time.perf_counter()

    def begin(self, arm: str, compiled: bool, done: int) -> None:
        """Show that ``arm`` starts, of which an earlier process has ``done`` so many iterations."""
        self._arm, self._here = arm, done
        self._before += self._study.iterations
        if done == self._study.iterations:
            self._show(done, f"read  {arm}")
        else:
            self._show(done, f"{'compiling' if compiled else 'starting'}  {arm}")

    def advance(self, measurement: Measurement) -> None:
        """Show the latest ``measurement`` of the current arm."""
        self._trained += measurement.iteration - self._here
        self._here = measurement.iteration
        done = self._before + measurement.iteration
        left = (time.perf_counter() - self._start) * (self._total - done) / self._trained
        modes = " / ".join(f"{c.modes.double().mean():.1f}" for c in measurement.coverage.values())
        self._show(measurement.iteration, f"ETA {timedelta(seconds=round(left))}  {modes}  {self._arm}")

    def _show(self, iteration: int, text: str) -> None:
        self.display.advance(self._before + iteration)
        self.display.stats(f"{iteration}/{self._study.iterations}  {text}")
