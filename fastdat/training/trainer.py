"""The training loop: D steps, G step, decay; statistics, samples and the guard against NaN around it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastdat.training import noise
from fastdat.training.config import TrainConfig
from fastdat.training.display import Display, display_for, summarise
from fastdat.training.errors import NonFiniteError
from fastdat.training.images import grid_png
from fastdat.training.meter import Meter
from fastdat.training.run_folder import RunFolder
from fastdat.training.schedule import LearningRate
from fastdat.training.steps import Steps, evaluating, measurements


class Batches(Protocol):
    """Where reals come from: :class:`fastdat.data.TrainSampler`, or anything that answers by step."""

    def batch(self, step: int) -> Tensor:
        """Reals of D step ``step``: (batch_size, C, H, W) float32 in [-1, 1] on the nets' device."""
        ...


class Trainer:
    """Trains a pair of nets and writes a run folder.

    Everything random is a function of (seed, step), so that a run is a function of its configuration.

    Args:
        netG, netD: z (N, nz) -> images in [-1, 1]; images -> logits (N,) or (N, 1). On one device.
        optG, optD: their optimizers; the learning rates they come with are what decays.
        batches: reals, D step after D step.
        config: the rest.
        outdir: run folder; must not exist or be empty.
        display: what shows the run; by default a bar on a terminal, lines elsewhere.

    Raises:
        RunFolderError: ``outdir`` cannot be used.
    """

    def __init__(
        self,
        netG: nn.Module,
        netD: nn.Module,
        optG: Optimizer,
        optD: Optimizer,
        batches: Batches,
        config: TrainConfig,
        outdir: str | Path,
        *,
        display: Display | None = None,
    ) -> None:
        self.config = config
        self.folder = RunFolder(outdir)
        self.netG, self.netD = netG, netD
        self.optG, self.optD = optG, optD
        self._batches = batches
        self._steps = Steps(netG, netD, optG, optD, config)
        self._rate = LearningRate([optG, optD], config.lr_decay, config.steps)
        self._noise = noise.Noise(config.nz, seed=config.seed, device=next(netG.parameters()).device)
        self._display = display or display_for(config.steps)
        self._meter_d, self._meter_g = Meter(), Meter()
        self._clock = _Clock()
        self._recorded = 0  # the step of the last line of stats.jsonl

    def train(self) -> None:
        """Run all ``config.steps`` G steps.

        Raises:
            NonFiniteError: a loss, a logit or a weight became NaN or infinite.
        """
        config = self.config
        self.folder.write_config(config.to_dict())
        self.folder.write_reals(grid_png(self._batches.batch(0)[: config.samples]))
        self._write_samples(0)
        with self._display:
            self.note("first step ..." + (" (compiles: a minute or two)" if config.compile else ""))
            self._clock.start()
            for step in range(config.steps):
                try:
                    self._step(step)
                except KeyboardInterrupt:
                    self.note(f"interrupted after {step} steps")
                    raise
            took = f"{config.steps} steps in {self._clock.seconds():.0f} s"
            self.note(f"done: {took}; samples and stats are in {self.folder.path}")

    def note(self, text: str) -> None:
        """Show ``text`` and keep it in log.txt."""
        self._display.note(text)
        self.folder.append_log(text)

    def _step(self, step: int) -> None:
        """One training iteration and what is due after it."""
        config, done = self.config, step + 1
        self._rate.set(step)
        self._iterate(step)
        self._display.advance(done)
        if step == 0:
            self._first_step_done()
        if done % config.log_every == 0 or done == config.steps:
            self._record(done)
        if done % config.sample_every == 0 or done == config.steps:
            self._write_samples(done)

    def _iterate(self, step: int) -> None:
        """``n_dis`` D steps, then one G step."""
        n_dis, batch_size = self.config.n_dis, self.config.batch_size
        for i in range(step * n_dis, (step + 1) * n_dis):
            z = self._noise.draw(noise.D_STEP, i, batch_size)
            loss, info = self._steps.discriminator(self._batches.batch(i), z)
            self._meter_d.add({"loss_d": loss, **measurements(info, self.config.dat)})
        loss = self._steps.generator(self._noise.draw(noise.G_STEP, step, batch_size))
        self._meter_g.add({"loss_g": loss})

    def _first_step_done(self) -> None:
        """Wait for it, say how long it took, and keep its compilation out of the speeds that follow."""
        torch.stack([p.sum() for p in self.netG.parameters()]).sum().item()
        self.note(f"first step took {self._clock.seconds():.1f} s")
        self._clock.lap(1)

    def _record(self, done: int) -> None:
        """Read the meters, which waits for the device; check them; write them down."""
        means = self._meter_d.read() | self._meter_g.read()
        self._check_finite(done, means)
        numbers = {
            "seconds": self._clock.seconds(),
            "it_per_s": self._clock.lap(done),
            "lr": float(self.optG.param_groups[0]["lr"]),
            **means,
        }
        stats = {"step": done, **{name: float(f"{value:.6g}") for name, value in numbers.items()}}
        self.folder.append_stats(stats)
        self._recorded = done
        line = summarise(stats, self.config.steps)
        self.folder.append_log(line)
        self._display.stats(line)

    def _check_finite(self, done: int, means: dict[str, float]) -> None:
        bad = [f"{name} = {value}" for name, value in means.items() if not math.isfinite(value)]
        named = [*_named("netG", self.netG), *_named("netD", self.netD)]
        finite = torch.stack([p.isfinite().all() for _, p in named]).tolist()
        weights = [name for (name, _), fine in zip(named, finite, strict=True) if not fine]
        if not bad and not weights:
            return
        lines = [f"training produced NaN or infinity between steps {self._recorded + 1} and {done}"]
        if bad:
            lines.append("means over these steps: " + ", ".join(bad))
        if weights:
            lines.append(f"{len(weights)} of {len(named)} weights are affected, first {weights[0]}")
        lines.append("stats.jsonl and samples/ hold the run up to then.")
        lines.append("Try a smaller lr, precision=fp32 or a smaller dat.eps.")
        report = "\n".join(lines)
        self.folder.append_log(report)
        raise NonFiniteError(report)

    def _write_samples(self, done: int) -> None:
        """The same z every time, G in evaluation mode."""
        z = self._noise.draw(noise.SAMPLES, 0, self.config.samples)
        with torch.no_grad(), evaluating(self.netG):
            images = self.netG(z)
        path = self.folder.write_samples(done, grid_png(images))
        self.folder.append_log(f"wrote {path}")


class _Clock:
    """Seconds since the start, and steps a second since the last lap."""

    def __init__(self) -> None:
        self._started = self._lap = time.monotonic()
        self.last = 0  # step of the last lap

    def start(self) -> None:
        self._started = self._lap = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def lap(self, done: int) -> float:
        """Steps a second since the last lap; of the first step alone where no step came since."""
        now = time.monotonic()
        if done == self.last:
            return done / (now - self._started)
        rate = (done - self.last) / (now - self._lap)
        self._lap, self.last = now, done
        return rate


def _named(prefix: str, net: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(f"{prefix}.{name}", parameter) for name, parameter in net.named_parameters()]
