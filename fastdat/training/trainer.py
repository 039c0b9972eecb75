"""The training loop: an iteration, and then what is due after it: a log line, samples, a checkpoint, scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastdat.metrics.evaluators import Evaluator
from fastdat.nets.shared_batch import share_batch
from fastdat.robustness.monitor import Monitor
from fastdat.training import noise
from fastdat.training.batches import as_batches, check_shares, first_reals
from fastdat.training.callbacks import Callback, Callbacks
from fastdat.training.clock import Clock
from fastdat.training.config_file import with_absolute_paths
from fastdat.training.device_settings import cudnn_tuned, settled
from fastdat.training.display import Display, Nothing, display_for
from fastdat.training.ema import EMA
from fastdat.training.first_look import check_first_samples, check_optimizers, put_into_training_mode
from fastdat.training.hang_watch import HangWatch
from fastdat.training.heartbeat import Heartbeat
from fastdat.training.networks import Networks
from fastdat.training.outputs import Outputs
from fastdat.training.recorder import Recorder
from fastdat.training.replay import iteration_for
from fastdat.training.run_checkpoints import RunCheckpoints
from fastdat.training.run_folder import RunFolder
from fastdat.training.sampling import from_latents
from fastdat.training.scoring import require_evaluator
from fastdat.training.state import RunState
from fastdat.training.stop import StopRequests
from fastdat.training.train_config import TrainConfig
from fastdat.training.wandb_logger import require_wandb
from fastdat.util.errors import ConfigError, LostRankError, NonFiniteError
from fastdat.util.ranks import Ranks, lost_contact
from fastdat.util.settings import PositiveInt, SeedInt, checked


class Trainer:
    """Trains a pair of nets and writes a run folder; resumes the run of a folder that holds one.

    For a loop in the style of mimicry::

        fastdat.Trainer(netD=netD, netG=netG, optD=optD, optG=optG, batches=loader, outdir="runs/mine", steps=100_000,
                        n_dis=5, lr_decay="linear").train()

    Everything random is a function of (seed, step), so a run is a function of its configuration, and resuming is
    exact. The exception is a ``DataLoader``, which decides the order of the reals itself.

    Where ``torch.distributed`` is initialized, its processes train one run together, and each makes a Trainer from the
    same arguments: ``config.batch_size`` is the batch of all of them, and the numbers are those of one process up to
    rounding. Batch norms become :func:`fastdat.nets.share_batch`'s, gradients are averaged, and rank 0 writes the run
    folder. Nets are given as they are, not in DistributedDataParallel.

    Args:
        netG, netD: z (N, nz) -> images in [-1, 1]; images -> logits (N,) or (N, 1). Both on one device. With
            ``classes``, both also take labels (N,). A D that is a :class:`fastdat.nets.HasAuxiliaryLoss` adds its loss.
            A net in evaluation mode is put into training mode, which log.txt says; single layers keep their modes.
        optG, optD: their optimizers, with the learning rates that decay. They are set before each iteration, so that a
            scheduler of your own has no effect, and are afterwards what they were before.
        batches: reals: a :class:`fastdat.data.ImageSet`, a ``DataLoader``, or :class:`fastdat.training.Batches`.
        config: all other settings. Those that say how nets, optimizers and reals are made
            (:data:`fastdat.training.train_config.MAKING`) must keep their defaults. Those of a preset are dropped, as
            log.txt then says.
        outdir: run folder: new, empty, or of a run with this configuration.
        classes: number of classes for conditional nets, else 0.
        evaluator: makes the scores that ``config.eval`` asks for while training.
        callbacks: your own metrics: functions ``f(trainer)`` that return a dict name -> number, or None. They are
            called whenever a line of stats.jsonl is due, and their numbers become part of it, of the log and of the
            report. They may call :meth:`samples`, :meth:`latents` and :meth:`reals` and use ``netG``, ``netD`` and
            ``done``; the nets are then in evaluation mode, gradients are off, and training stays the same to the last
            bit.
        display: shows the run; by default a progress bar on a terminal, and lines elsewhere.
        resume_from: the checkpoint to resume from if not from latest.pt: ``"newest"`` (the undamaged one of the highest
            step), ``"best"``, ``"step-000500"`` or a path. Later ones are then set aside.
        extend: a resumed run may get other ``steps`` although ``lr_decay`` then changes its rates.
        settings: changes to ``config``, as in :meth:`TrainConfig.replace`.

    Raises:
        ConfigError: settings or optimizers that do not fit each other or the nets, or differ from those of the run in
            ``outdir``.
        RunFolderError: ``outdir`` cannot be used, or the checkpoint to resume from is missing or damaged.
    """

    _from_config = False
    """Whether nets, optimizers and reals are those that the config says: :func:`build_trainer` has made them."""

    def __init__(
        self,
        netG: nn.Module,
        netD: nn.Module,
        optG: Optimizer,
        optD: Optimizer,
        batches: Any,
        config: TrainConfig | None = None,
        outdir: str | Path = "runs/fastdat",
        *,
        classes: int = 0,
        evaluator: Evaluator | None = None,
        callbacks: Sequence[Callback] = (),
        display: Display | None = None,
        resume_from: str | Path | None = None,
        extend: bool = False,
        **settings: Any,
    ) -> None:
        self.ranks = ranks = Ranks.now()
        base, dropped = config or TrainConfig(), list[str]()
        if not self._from_config:
            base, dropped = base.for_own_nets()
        wanted = with_absolute_paths(base.replace(settings))
        device = next(netG.parameters()).device
        config, chosen = ranks.by_first(lambda: settled(wanted, device, outdir, resume_from))
        self.config = config
        ranks.together(lambda: check_shares(config, ranks))
        if not self._from_config:
            config.refuse_unused()
        require_evaluator(config.eval, evaluator)
        if config.logger == "wandb":
            require_wandb()
        monitors = [Monitor(config.monitor)] if config.monitor.every else []
        self._callbacks = Callbacks(callbacks, monitors)
        self._reals: dict[int, tuple[Tensor, ...]] = {}
        check_optimizers(netG, netD, optG, optD)
        chosen = [*dropped, *chosen, *put_into_training_mode(netG, netD)]
        if ranks:
            share_batch(netG)
            share_batch(netD)
        self.netG, self.netD, self.optG, self.optD = netG, netD, optG, optD
        self.ema = EMA(netG, config.ema) if config.ema else None
        self.state = RunState()
        self._networks = Networks(netG, netD, optG, optD, self.ema)
        self._noise = noise.Noise(config.nz, seed=config.seed, device=device, classes=classes)
        reals = as_batches(batches, config, device, ranks)
        self.iteration = iteration_for(self._networks, reals, self._noise, self.state, config, ranks)
        self._evaluator = evaluator
        self._display = (display or display_for(config.steps)) if ranks.first else Nothing()
        self._stop = stop = StopRequests()
        # Not self._stop: a Trainer that refers to itself would hold its folder's lock after it is dropped.
        self._watch = HangWatch(ranks, config.hang_timeout, busy=lambda: stop.compiling)
        self.folder = ranks.together(lambda: RunFolder(outdir, writes=ranks.first))
        self._recorder = Recorder(self.folder, self._display, config.steps)
        try:
            self._checkpoints = RunCheckpoints(
                self.folder,
                self._networks,
                self.iteration.steps.regularizers,
                self.state,
                self._noise,
                reals,
                config,
                ranks,
                excused=self._watch.excused,
            )
            self._remarks = [*self._checkpoints.resume(resume_from, extend), *chosen]
        except BaseException:
            self.folder.close()
            raise
        finally:
            self.iteration.put_back()  # a checkpoint has the rates of its step; a finished run sets none after it
        self._clock = Clock(self.done, self.state.seconds)
        self._outputs = Outputs(
            config,
            self._networks,
            self.state,
            self._noise,
            self._recorder,
            self._checkpoints,
            self._clock,
            evaluator,
            ranks,
        )

    @property
    def done(self) -> int:
        """G steps done."""
        return self.state.done

    def train(self) -> None:
        """Train until ``config.steps`` G steps are done, then close the run folder.

        Raises:
            NonFiniteError: a loss, a logit or a weight became NaN or infinite, and no retry is left.
            KeyboardInterrupt: the process was asked to stop; :class:`StoppedError`, which is one, by SIGTERM or SIGHUP.
                After one request latest.pt holds the last step; it may be older after a second one, or if a step was
                being compiled.
            RunFolderError: the run folder can no longer be written.
        """
        if not self.folder.close.alive:
            raise ConfigError(
                f"this Trainer has trained already; make a new one on {self.folder.path} to resume from its checkpoint"
            )
        try:
            if self.ranks.first:
                self._recorder.open_logger(self.config, self.done)
            heartbeat = Heartbeat(self._recorder, self._display.every)
            with self._display, self._stop, heartbeat, cudnn_tuned(self.config), self._watch:
                if self._begin():
                    self._loop()
        finally:
            self._recorder.close()
            self.iteration.close()
            self.folder.close()

    def _begin(self) -> bool:
        """Load what scoring needs, and write the files that come before the first step; False if all is done."""
        config, state = self.config, self.state
        if self._evaluator is not None and config.eval.every:
            self._evaluator.prepare()  # so that errors come now, not hours later
        self._note_all(self._remarks)
        self._note_all(self.iteration.remarks)
        if state.done >= config.steps and not state.unscored:
            self.note(f"nothing to do: all {config.steps} steps are done; see {self.folder.path}")
            return False
        if state.done < config.steps:
            self._checkpoints.check_savable()
            about = self._networks, self.iteration, self._noise, config, state.done * config.n_dis
            self.ranks.together(lambda: check_first_samples(*about, self.ranks))
        self.folder.write_config(config.recorded())
        if state.done == 0:
            self._outputs.reals(self.iteration.batches)
            self._outputs.samples()
        state.restore_rng()  # again: the caller or the evaluator may have drawn since the checkpoint was read
        self.note("first step ...")
        self._clock.start()
        return True

    def _loop(self) -> None:
        """All iterations that are left. A stop request ends them after a step, an error at once."""
        config, state = self.config, self.state
        while state.done < config.steps or state.unscored:
            try:
                self._watch.beat(state.done)
                # What all ranks have agreed on; a request that comes after it waits for the next round.
                if self.ranks.any(self._stop.requested is not None):
                    self._stop.join(self.ranks.all_of(self._stop.requested))
                    if state.done and self._checkpoints.saved_at != state.done:
                        self.save()
                    self._stop.raise_if_requested()
                self._iterate()
            except NonFiniteError as error:
                self._roll_back(error)
            except RuntimeError as error:
                if self.ranks and lost_contact(error):
                    raise LostRankError(
                        f"rank {self.ranks.rank} has lost contact with another process of the run, whose message says "
                        "why it ended. The same command resumes the run"
                    ) from error
                raise
            except KeyboardInterrupt:
                self.note(self._stop.told(state.done, self._checkpoints.saved_at, scoring=state.unscored))
                raise
        took = f"{config.steps} steps in {self._clock.seconds():.0f} s"
        self.note(f"done: {took}; samples and stats are in {self.folder.path}")

    def _iterate(self) -> None:
        """One iteration and what is due after it; or only the scores, if the run was stopped before they were made."""
        config, state = self.config, self.state
        if not state.unscored:
            self.iteration.run(state.done)  # n_dis D steps, one G step, the running average
            self._note_all(self.iteration.remarks)
            state.done += 1
            self._recorder.advance(state.done)
            if self._clock.fresh:
                self._outputs.first_step()
            if self._due(config.log_every):
                self._outputs.stats(self._measured)
            if self._due(config.sample_every):
                self._outputs.samples()
            state.unscored = self._due(config.eval.every)
            # Before scoring, which may take as long as many steps: if it is interrupted, nothing is lost.
            failed = self._callbacks.failed
            anywhere = self._due(config.log_every) and self.ranks.any(failed is not None)
            if anywhere and failed is None:  # rank 0 alone calls them
                failed = RuntimeError("a callback failed on rank 0, which says more")
            if self._due(config.checkpoints.every) or state.unscored or failed is not None:
                self.save()
            if failed is not None:
                failed.add_note("latest.pt holds this step: correct the callback and resume the run.")
                self._recorder.log("\n".join([f"{type(failed).__name__}: {failed}", *failed.__notes__]))
                raise failed
        if state.unscored:
            self._outputs.scores(self._should_stop)

    def _measured(self) -> dict[str, float]:
        with self._watch.excused():  # callbacks and monitors take their time, on rank 0 alone
            return self._callbacks.numbers(self)

    def _should_stop(self) -> bool:
        """Asked while scores are made."""
        self._watch.beat(self.done)
        return self._stop.requested is not None

    def _due(self, every: int | None) -> bool:
        """Whether it is time for something that happens every ``every`` steps, and after the last step."""
        return every is not None and (self.done % every == 0 or self.done == self.config.steps)

    def _roll_back(self, error: NonFiniteError) -> None:
        """Go back to the last checkpoint and on with other noise.

        Raises:
            NonFiniteError: that is not wanted, or not possible.
        """
        retries, attempt, saved = self.config.nan_retries, self.state.attempt + 1, self._checkpoints.saved_at
        ending = None
        if saved is None:
            ending = "No rollback: there is no checkpoint yet; a smaller checkpoints.every makes one earlier."
        elif self.config.on_nan == "stop":
            ending = f"on_nan=rollback goes back to step {saved} by itself and on with other noise."
        elif attempt > retries:
            ending = f"No rollback: {retries} retries are used up."
        if ending is not None:
            self._recorder.log(f"{error}\n{ending}")
            raise NonFiniteError(f"{error}\n{ending}") from error
        self._note_all(self._checkpoints.roll_back())
        self._recorder.rewind(self.done, scored=not self.state.unscored)
        self._clock.back_to(self.done)
        self.note(f"{error}\nback to step {self.done}, retry {attempt} of {retries} with other noise")

    def samples(self, n: int, *, seed: int = 0) -> Tensor:
        """``n`` samples (n, ...) of the net that is also scored: the running average of G if there is one, else G.

        Equal seeds give the same z at every step, and labels if there are classes. They are drawn from a stream of
        their own: training is the same with and without this call.

        Args:
            n: how many.
            seed: of z and labels.

        Raises:
            ConfigError: ``n`` or ``seed`` is no such number.
        """
        net, (z, *labels) = self._networks.sampled, self.latents(n, seed=seed)
        return torch.cat(list(from_latents(net, z, tuple(labels), self.config.batch_size)))

    def latents(self, n: int, *, seed: int = 0) -> tuple[Tensor, ...]:
        """The z (n, nz) of :meth:`samples`, and the labels (n,) if there are classes.

        Args:
            n: how many.
            seed: of z and labels.

        Raises:
            ConfigError: ``n`` or ``seed`` is no such number.
        """
        n, seed = checked("n", n, PositiveInt), checked("seed", seed, SeedInt)
        draws = self._noise.reseeded(seed)
        return draws.draw(noise.CALLBACKS, 0, n), *draws.labels(noise.CALLBACKS, 0, n)

    def reals(self, n: int) -> tuple[Tensor, ...]:
        """The first ``n`` reals (n, ...) of the training, and their labels (n,) if there are classes.

        They are the same at every call, and also in a resumed run. A ``DataLoader`` cannot go back: there they are
        those of one batch, at most ``config.batch_size``, which is kept from the first call on. A resumed run then
        keeps another batch, so that a curve of what is measured on it may jump.

        Args:
            n: how many.

        Raises:
            ConfigError: ``n`` is no such number.
        """
        n = checked("n", n, PositiveInt)
        if n not in self._reals:
            labelled = self._noise.classes > 0
            self._reals[n] = first_reals(self.iteration.batches, n, self.config, self.done, labelled=labelled)
        return self._reals[n]

    def save(self) -> None:
        """Write checkpoints/latest.pt, which is all that is needed to resume from here.

        Raises:
            RunFolderError: it cannot be written; the one before it is intact.
            NonFiniteError: there is NaN or infinity in what would be saved.
            ConfigError: a callback asks for it in a run of several processes, of which one alone runs callbacks.
        """
        if self.ranks and not Ranks.now():
            raise ConfigError(
                "a callback runs on rank 0 alone, and a checkpoint needs all ranks: set checkpoints.every instead"
            )
        self._outputs.checkpoint()

    def _note_all(self, remarks: list[str]) -> None:
        """Note them, and take them away."""
        while remarks:
            self.note(remarks.pop(0))

    def note(self, text: str) -> None:
        """Show ``text`` and keep it in log.txt."""
        self._recorder.note(text)
