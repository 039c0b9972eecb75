"""What a run writes between its iterations: a log line, samples, a checkpoint, scores."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from fastdat.metrics.evaluators import Evaluator, Progress
from fastdat.training import scoring
from fastdat.training.batches import Batches, first_reals
from fastdat.training.clock import Clock
from fastdat.training.networks import Networks
from fastdat.training.noise import Noise
from fastdat.training.recorder import Recorder
from fastdat.training.run_checkpoints import RunCheckpoints
from fastdat.training.sampling import sample_grid
from fastdat.training.state import RunState
from fastdat.training.train_config import TrainConfig
from fastdat.util.progress import ProgressText
from fastdat.util.ranks import ONE_PROCESS, Ranks, alone


class Outputs:
    """Writes each output of a run; the training loop decides when.

    Args:
        config: of the run.
        networks: what is sampled, scored and saved.
        state: how far the run is.
        noise: of the run; samples and scores draw from streams of their own.
        recorder: receives what is reported.
        checkpoints: receives what is saved.
        clock: times the run.
        evaluator: makes the scores; None if there are none.
        ranks: those that train together. All of them call every method; what a net is asked for in evaluation mode,
            rank 0 computes alone.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: Networks,
        state: RunState,
        noise: Noise,
        recorder: Recorder,
        checkpoints: RunCheckpoints,
        clock: Clock,
        evaluator: Evaluator | None,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:
        self._ranks = ranks
        self._config, self._networks, self._state, self._noise = config, networks, state, noise
        self._recorder, self._checkpoints, self._clock = recorder, checkpoints, clock
        self._evaluator = evaluator

    def reals(self, batches: Batches) -> None:
        """A grid of the first reals, to compare the samples with; of a loader, at most one batch."""
        if not self._ranks.first:
            return
        # Rank 0 alone: it takes no batch of a loader which the other ranks do not take as well.
        (reals,) = first_reals(batches, self._config.samples, self._config, 0, labelled=False)
        self._recorder.reals(reals)

    def first_step(self) -> None:
        """Wait for the first step of this process and report its time; later speeds leave it out."""
        torch.stack([p.sum() for p in self._networks.G.parameters()]).sum().item()
        self._recorder.note(f"first step took {self._clock.since_start():.1f} s")
        self._clock.lap(self._state.done)

    def stats(self, own: Callable[[], dict[str, float]]) -> None:
        """A line of numbers: means since the last one, speed, learning rate, and what ``own`` measures, which the speed
        leaves out. Waits for the device."""
        means = self._checkpoints.check_finite()
        self._state.clear_meters()
        seconds, speed = self._clock.seconds(), self._clock.lap(self._state.done)
        lr = float(self._networks.opt_g.param_groups[0]["lr"])
        start = time.monotonic()
        measured: dict[str, float] = {}
        if self._ranks.first:
            with alone():
                measured = own()
        self._clock.pause(time.monotonic() - start)
        numbers = {"seconds": seconds, "it_per_s": speed, "lr": lr, **means, **measured}
        self._recorder.stats(self._state.done, numbers)

    def samples(self) -> None:
        """A grid of samples, from the same z at every step."""
        if not self._ranks.first:
            return
        draws = self._noise.reseeded(self._config.seed)
        samples = sample_grid(self._networks.sampled, draws, self._config.samples, self._config.batch_size)
        self._recorder.samples(self._state.done, samples)

    def checkpoint(self) -> None:
        """latest.pt, from which the run can be resumed; raises as :meth:`Trainer.save`."""
        self._state.seconds = self._clock.seconds()
        self._checkpoints.save()
        self._recorder.flush()

    def scores(self, should_stop: Callable[[], bool]) -> None:
        """Scores of the generator, and its checkpoint as best.pt if they are the best so far.

        Where ``should_stop`` becomes true in the middle, the state stays unscored, and nothing is written.
        """
        settings, state = self._config.eval, self._state
        assert self._evaluator is not None
        self._checkpoints.check_finite()
        start = time.monotonic()
        self._recorder.note(f"scoring with {settings.fakes:,} samples ...")
        records = scoring.score(
            self._evaluator,
            self._networks.sampled,
            settings,
            self._noise.reseeded(settings.seed),
            about={"step": state.done, "weights": self._networks.sampled_name, "by": "train"},
            progress=self._progress_of_scores(should_stop),
        )
        self._recorder.progress("")
        if records is None:
            if not self._ranks.any(should_stop()):
                raise RuntimeError("the evaluator returned no scores, but it was not asked to stop")
            return
        for record in records:
            self._recorder.scores(record)
        self._clock.pause(time.monotonic() - start)
        state.unscored = False
        best = scoring.better(state.best, records[0], settings)
        if best is not None:
            state.best = best
            state.seconds = self._clock.seconds()
            self._checkpoints.save_best()
        self.checkpoint()

    def _progress_of_scores(self, should_stop: Callable[[], bool]) -> Progress:
        """Shows now and then how far the scores are, and asks to go on until ``should_stop``."""
        text, shown = ProgressText(), time.monotonic()

        def progress(what: str, done: int, total: int) -> bool:
            nonlocal shown
            line = text(f"scoring, {what}", done, total)
            if time.monotonic() - shown >= self._recorder.every:
                shown = time.monotonic()
                self._recorder.progress(line)
            return not should_stop()

        return progress
