"""The training loop: D steps, G step, decay; and around it records, scores, checkpoints and the guard against NaN."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.evaluators import Evaluator, ranking, shown
from fastdat.training import checkpoint, noise
from fastdat.training.batches import LoaderBatches, as_batches
from fastdat.training.clock import Clock
from fastdat.training.display import Display, display_for, summarise
from fastdat.training.ema import EMA
from fastdat.training.events import Events
from fastdat.training.finite import check_finite, infinite
from fastdat.training.meter import Meter
from fastdat.training.png import grid_png, points_png, to_uint8
from fastdat.training.resume import check_resumable, check_same_parts
from fastdat.training.run_folder import RunFolder
from fastdat.training.sampling import from_latents, generated, in_order
from fastdat.training.schedule import LearningRate
from fastdat.training.steps import Steps, measurements
from fastdat.training.stop import StopRequests
from fastdat.training.train_config import MAKING, TrainConfig
from fastdat.util.errors import ConfigError, NonFiniteError
from fastdat.util.provenance import versions

#: What scores have in common, in their records, that can be ranked.
_KIND = ("split", "extractor", "extractor_sha256", "fake_count", "real_count", "data_sha256")


class Trainer:
    """Trains a pair of nets and writes a run folder; over the folder of a run that was stopped, or killed, it goes on.

    For a loop in the style of mimicry::

        fastdat.Trainer(netD=netD, netG=netG, optD=optD, optG=optG, batches=loader, outdir="runs/mine", steps=100_000,
                        n_dis=5, lr_decay="linear").train()

    Everything random is a function of (seed, step), so that a run is a function of its configuration, and resuming is
    exact; with a ``DataLoader`` up to the order of the reals, which is the loader's affair.

    Args:
        netG, netD: z (N, nz) -> images in [-1, 1]; images -> logits (N,) or (N, 1). On one device. With ``classes``,
            both are given labels (N,) too. A D that is a :class:`fastdat.nets.HasAuxiliaryLoss` brings its own loss.
        optG, optD: their optimizers; the learning rates they come with are what decays.
        batches: reals: a :class:`fastdat.data.ImageSet`, a ``DataLoader``, or :class:`fastdat.training.Batches`.
        config: the rest; the defaults where None. What only says how nets and optimizers are made (:data:`MAKING` of
            :mod:`fastdat.training.train_config`) is left at its defaults beside nets of one's own.
        outdir: run folder; new, empty, or of a run with this configuration.
        classes: number of classes for conditional nets, else 0.
        evaluator: makes the scores that ``config.eval`` asks for while training.
        display: what shows the run; by default a bar on a terminal, lines elsewhere.
        settings: changes to ``config``, as of :meth:`TrainConfig.replace`.

    Raises:
        ConfigError: settings that do not fit, or differ from those the run in ``outdir`` was begun with.
        RunFolderError: ``outdir`` cannot be used.
    """

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
        display: Display | None = None,
        **settings: Any,
    ) -> None:
        self.config = config = (config or TrainConfig()).replace(settings)
        _refuse_idle(config)
        device = next(netG.parameters()).device
        self._batches = as_batches(batches, config, device)
        self.netG, self.netD = netG, netD
        self.optG, self.optD = optG, optD
        self.ema = EMA(netG, config.ema) if config.ema else None
        self._steps = Steps(netG, netD, optG, optD, config)
        self._optimizers = {
            "optG": checkpoint.optimizer_settings(optG),
            "optD": checkpoint.optimizer_settings(optD),
        }
        self._constant = infinite({"netG": netG, "netD": netD})
        self._rate = LearningRate([optG, optD], config.lr_decay, config.steps)
        self._noise = noise.Noise(config.nz, seed=config.seed, device=device, classes=classes)
        self._evaluator = evaluator
        if config.eval.every and evaluator is None:
            raise ConfigError("eval.every is set, but no evaluator was given to the Trainer")
        self._display = display or display_for(config.steps)
        self._meter_d, self._meter_g = Meter(), Meter()
        self.done = 0
        """G steps done."""
        self._best: dict[str, Any] | None = None
        self._seconds = 0.0  # of training before this process
        self._checked = 0  # the step up to which all is known to be finite
        self._unscored = False  # scores of the last step are due
        self._rng: checkpoint.State | None = None
        self._stop = StopRequests()
        self.folder = RunFolder(outdir)
        try:
            self._notes = self._take_up()
        except BaseException:
            self.folder.close()
            raise
        self._clock = Clock(self.done, self._seconds)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Go on until ``config.steps`` G steps are done, then close the run folder.

        Raises:
            NonFiniteError: a loss, a logit or a weight became NaN or infinite, and no retry is left.
            KeyboardInterrupt: the process was asked to stop; the checkpoint of that step is written.
            RunFolderError: the run folder cannot be written any more.
        """
        config = self.config
        if not self.folder.close.alive:
            raise ConfigError(
                f"this Trainer has trained already; a new one on {self.folder.path} goes on from its checkpoint"
            )
        self._events = Events(self.folder.path / "tensorboard", self.done) if config.tensorboard else None
        try:
            with self._display, self._stop:
                if self._evaluator is not None and config.eval.every:
                    self._evaluator.prepare()  # what is missing is told now, not hours later
                for note in self._notes:
                    self.note(note)
                if self.done >= config.steps and not self._unscored:
                    self.note(f"nothing to do: all {config.steps} steps are done; see {self.folder.path}")
                    return
                self._begin()
                while self.done < config.steps or self._unscored:
                    try:
                        if self._unscored:
                            self._score()
                        else:
                            self._step(self.done)
                        if self._stop.requested and self.done < config.steps:
                            self.save()
                            self._end("stopped by {}")
                    except NonFiniteError as error:
                        self._roll_back(error)
                    except _Stopped:
                        raise
                    except KeyboardInterrupt:
                        self.note(
                            f"interrupted after {self.done} steps, in the middle of one: no checkpoint of it"
                        )
                        raise
                took = f"{config.steps} steps in {self._clock.seconds():.0f} s"
                self.note(f"done: {took}; samples and stats are in {self.folder.path}")
        finally:
            if self._events is not None:
                self._events.close()
            close = getattr(self._batches, "close", None)  # of a thread that gathers ahead
            if close is not None:
                close()
            self.folder.close()

    def note(self, text: str) -> None:
        """Show ``text`` and keep it in log.txt."""
        self._display.note(text)
        self.folder.append_log(text)

    def _begin(self) -> None:
        self.folder.write_config(self._described())
        if self.done == 0:
            self._write_reals()
            self._write_samples(0)
        if self._rng is not None:  # again, after all that may have drawn since the checkpoint was read
            checkpoint.set_rng_state(self._rng)
        self.note("first step ..." + (" (compiles: a minute or two)" if self.config.compile else ""))
        self._clock.start()

    def _step(self, step: int) -> None:
        """One training iteration and what is due after it."""
        config, done = self.config, step + 1
        self._rate.set(step)
        self._iterate(step)
        if self.ema is not None:
            self.ema.update()
        self.done = done
        self._display.advance(done)
        if self._clock.fresh:
            self._first_step_done()
        last = done == config.steps
        if done % config.log_every == 0 or last:
            self._record()
        if done % config.sample_every == 0 or last:
            self._write_samples(done)
        self._unscored = bool(config.eval.every and (done % config.eval.every == 0 or last))
        # Before scoring, which may take as long as many steps: an end in the middle of it then loses nothing.
        if done % config.checkpoint_every == 0 or last or self._unscored:
            self.save()
        if self._unscored:
            self._score()

    def _iterate(self, step: int) -> None:
        """``n_dis`` D steps, then one G step."""
        n_dis, batch_size, draw = self.config.n_dis, self.config.batch_size, self._noise
        for i in range(step * n_dis, (step + 1) * n_dis):
            xr, real_labels = self._reals(i)
            z, fake_labels = draw.draw(noise.D_STEP, i, batch_size), draw.labels(noise.D_STEP, i, batch_size)
            loss, info = self._steps.discriminator(xr, z, real_labels, fake_labels)
            self._meter_d.add({"loss_d": loss, **measurements(info, self.config.dat)})
        labels = draw.labels(noise.G_STEP, step, batch_size)
        loss = self._steps.generator(draw.draw(noise.G_STEP, step, batch_size), labels)
        self._meter_g.add({"loss_g": loss})

    def _reals(self, i: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        xr = self._batches.batch(i)
        if not self._noise.classes:
            return xr, ()
        batches: Any = self._batches
        return xr, (batches.labels(i),)

    def _first_step_done(self) -> None:
        """Wait for it, say how long it took, and keep its compilation out of the speeds that follow."""
        torch.stack([p.sum() for p in self.netG.parameters()]).sum().item()
        self.note(f"first step took {self._clock.since_start():.1f} s")
        self._clock.lap(self.done)

    # --- what is written ---------------------------------------------------------------------------------------------

    def _record(self) -> None:
        """Read the meters, which waits for the device; check them; write them down."""
        means = self._check_finite()
        self._meter_d.clear()
        self._meter_g.clear()
        numbers = {
            "seconds": self._clock.seconds(),
            "it_per_s": self._clock.lap(self.done),
            "lr": float(self.optG.param_groups[0]["lr"]),
            **means,
        }
        stats = {"step": self.done, **{name: float(f"{value:.6g}") for name, value in numbers.items()}}
        self.folder.append_stats(stats)
        if self._events is not None:
            self._events.stats(stats)
        line = summarise(stats, self.config.steps)
        self.folder.append_log(line)
        self._display.stats(line)

    def _score(self) -> None:
        """Score the generator, write the scores down, and keep the checkpoint as the best if it is."""
        assert self._evaluator is not None
        self._check_finite()
        start = time.monotonic()
        self.note(f"scoring with {self.config.eval.fakes:,} samples ...")
        records = self._evaluator(self._fakes, lambda *_: self._go_on_scoring())
        shared = {"step": self.done, "weights": "G" if self.ema is None else "ema", "by": "train"}
        records = [{**shared, **record} for record in records]
        for record in records:
            self.folder.append_metrics(record)
            if self._events is not None:
                self._events.metrics(record)
            self.note(shown(record))
        self._clock.pause(time.monotonic() - start)
        self._unscored = False
        name, rank = ranking(records[0], self.config.eval)
        # Only scores of one kind are ranked, where a run goes on under another evaluation.
        kind = {"name": name, **{key: records[0].get(key) for key in _KIND}}
        best = self._best
        if best is None or best["kind"] != kind or rank > best["rank"]:
            self._best = {"step": self.done, "kind": kind, "rank": rank, "score": records[0]["scores"][name]}
            checkpoint.save(self.folder.best, self._state())
        self.save()

    def _fakes(self, count: int) -> Any:
        """What the evaluator scores: ``count`` samples of G, or of its average."""
        settings: EvalConfig = self.config.eval
        draws = noise.Noise(
            self.config.nz, seed=settings.seed, device=self._noise.device, classes=self._noise.classes
        )
        for batch in generated(self._sampled(), draws, noise.EVALUATION, count, settings.batch_size):
            self._go_on_scoring()
            yield to_uint8(batch) if batch.ndim == 4 else batch

    def _go_on_scoring(self) -> None:
        if self._stop.requested:
            self._end("stopped by {} while being scored")

    def _sampled(self) -> nn.Module:
        return self.netG if self.ema is None else self.ema.net

    def _write_samples(self, done: int) -> None:
        """The same z every time, G in evaluation mode."""
        count = self.config.samples
        z = noise.Noise(self.config.nz, seed=self.config.seed, device=self._noise.device).draw(
            noise.SAMPLES, 0, count
        )
        samples = torch.cat(
            list(from_latents(self._sampled(), z, in_order(self._noise, count), self.config.batch_size))
        )
        png = _picture(samples)
        path = self.folder.write_samples(done, png)
        if self._events is not None:
            self._events.samples(done, png)
        self.folder.append_log(f"wrote {path}")

    def _write_reals(self) -> None:
        count, batches = self.config.samples, -(-self.config.samples // self.config.batch_size)
        reals = torch.cat([self._batches.batch(i) for i in range(batches)])
        self.folder.write_reals(_picture(reals[:count]))

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write checkpoints/latest.pt, which is all that going on from here needs.

        Raises:
            RunFolderError: it cannot be written; the one before it is intact.
            NonFiniteError: there is NaN or infinity in what would be saved.
        """
        self._check_finite()
        checkpoint.save(self.folder.latest, self._state())
        if self._events is not None:
            self._events.flush()

    def _state(self) -> checkpoint.State:
        return {
            "step": self.done,
            "config": self._described(),
            "versions": versions(),
            "data": self._fingerprint(),
            "netG": self.netG.state_dict(),
            "netD": self.netD.state_dict(),
            "ema": None if self.ema is None else self.ema.net.state_dict(),
            "optG": self.optG.state_dict(),
            "optD": self.optD.state_dict(),
            "optimizers": self._optimizers,
            "rng": checkpoint.rng_state(),
            "seconds": self._clock.seconds(),
            "attempt": self._noise.attempt,
            "meters": {"d": self._meter_d.state(), "g": self._meter_g.state()},
            "best": self._best,
            "unscored": self._unscored,
        }

    def _described(self) -> dict[str, Any]:
        """The configuration, without what says nothing of nets and optimizers that a user brought along."""
        own = self.config.model is None
        return {key: value for key, value in self.config.to_dict().items() if not (own and key in MAKING)}

    def _fingerprint(self) -> str | None:
        """Of the reals; None where they have none."""
        found: str | None = getattr(self._batches, "fingerprint", None)
        return found

    def _take_up(self) -> list[str]:
        """Go on from the folder's checkpoint, where there is one. Returns remarks for the log."""
        begun, path = self.folder.read_config(), self.folder.path
        if begun is None:
            return []
        kept = self.folder.latest.exists() or self.folder.best.exists()
        state = checkpoint.load(self.folder.latest) if kept else None
        # Of what was not kept any setting may be another: to mend one may be why it begins anew.
        remarks = check_resumable(path, begun, self.config, state["step"] if state else None)
        if state is not None:
            check_same_parts(path, state, self._optimizers, self._fingerprint())
            self._load(state)
            if isinstance(self._batches, LoaderBatches):
                remarks.append("the loader begins anew: which reals come next is its affair")
        self.folder.rewind(self.done, scored=not self._unscored)
        return [f"resumed after {self.done} steps", *remarks]

    def _load(self, state: checkpoint.State) -> None:
        try:
            self.netG.load_state_dict(state["netG"])
            self.netD.load_state_dict(state["netD"])
            if self.ema is not None:
                self.ema.net.load_state_dict(state["ema"])
        except RuntimeError as error:
            raise ConfigError(f"{self.folder.latest} is of other nets than these: {error}") from error
        for optimizer, saved in ((self.optG, state["optG"]), (self.optD, state["optD"])):
            checkpoint.load_optimizer(optimizer, saved)
        self._rng = state["rng"]
        checkpoint.set_rng_state(self._rng)
        self._meter_d.load(state["meters"]["d"], self._noise.device)
        self._meter_g.load(state["meters"]["g"], self._noise.device)
        self.done = self._checked = state["step"]
        self._seconds, self._best = state["seconds"], state["best"]
        self._noise.attempt = state["attempt"]
        # Scores that are not asked for any more are not made.
        self._unscored = state["unscored"] and bool(self.config.eval.every)

    def _check_finite(self) -> dict[str, float]:
        """Refuse NaN in the steps since the last look, and in what they measured, of which a checkpoint holds the sum.

        Returns what they measured: means since the last line of stats.jsonl.
        """
        means = self._meter_d.means() | self._meter_g.means()
        if means or self._checked < self.done:
            nets = {"netG": self.netG, "netD": self.netD}
            check_finite(nets, means, self._checked + 1, self.done, apart_from=self._constant)
        self._checked = self.done
        return means

    def _roll_back(self, error: NonFiniteError) -> None:
        """Take up the last checkpoint again, with other noise; or give up."""
        retries, attempt = self.config.nan_retries, self._noise.attempt + 1
        self.folder.append_log(str(error))
        if self.config.on_nan == "stop" or attempt > retries or not self.folder.latest.exists():
            if self.config.on_nan == "rollback":
                why = f"{retries} retries are used up" if attempt > retries else "there is no checkpoint yet"
                raise NonFiniteError(f"{error}\nNo rollback: {why}.") from error
            raise error
        self._load(checkpoint.load(self.folder.latest))
        self._noise.attempt = attempt
        self.folder.rewind(self.done, scored=not self._unscored)
        if self._events is not None:
            self._events.rewind(self.done)
        self._clock.back_to(self.done)
        self.note(f"{error}\nback to step {self.done}, retry {attempt} of {retries} with other noise")

    def _end(self, how: str) -> NoReturn:
        """Stop where the process was asked to; latest.pt is of this step."""
        done = how.format(self._stop.requested)
        self.note(f"{done} after {self.done} steps; the same command goes on from here")
        raise _Stopped


def _refuse_idle(config: TrainConfig) -> None:
    """Refuse settings that would do nothing.

    Raises:
        ConfigError: of how nets are made, beside nets that are made already.
    """
    default = TrainConfig()
    idle = [key for key in MAKING if getattr(config, key) != getattr(default, key)]
    if config.model is None and idle:
        raise ConfigError(
            f"{', '.join(idle)} would do nothing: nets, optimizers and reals are given. Set it where they are made."
        )


class _Stopped(KeyboardInterrupt):
    """A stop that was asked for, after which nothing is missing."""


def _picture(samples: Tensor) -> bytes:
    return grid_png(samples) if samples.ndim == 4 else points_png(samples)
