"""One training iteration: ``n_dis`` D steps, one G step, the running average, and what they measure.

Everything random, and everything that comes from outside, is fetched by :meth:`Iteration.fill`; :meth:`Iteration.body`
only computes on tensors. So a body can be captured once as a CUDA graph and replayed (``replay.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdat.nets.augmentation import DRAWS
from fastdat.training.batches import Batches
from fastdat.training.cosine import Cosine
from fastdat.training.fakes import Labels
from fastdat.training.networks import Networks
from fastdat.training.noise import (
    AUGMENT_FAKE,
    AUGMENT_G,
    AUGMENT_REAL,
    D_STEP,
    G_STEP,
    REGULARIZERS,
    Noise,
)
from fastdat.training.schedule import LearningRate, hold_rates_in_tensors
from fastdat.training.state import RunState
from fastdat.training.steps import Draws, Reals, Steps, TermDraws, measurements
from fastdat.training.train_config import TrainConfig
from fastdat.util.ranks import ONE_PROCESS, Ranks


class Latents(NamedTuple):
    """What G makes the fakes of all D steps from: z (n_dis, N, nz), and labels (n_dis, N)."""

    z: Tensor
    labels: Labels


class DInputs(NamedTuple):
    """Inputs of one D step beside its fakes: which regularizers take part, as the first step in which the same ones do;
    reals (N, C, H, W); labels of the reals; the augmentations of reals and fakes; what the regularizers have drawn."""

    turn: int
    reals: Tensor
    labels_real: Labels
    draws_real: Draws
    draws_fake: Draws
    draws: TermDraws


class GInputs(NamedTuple):
    """Inputs of one G step: z (N, nz), and the labels and augmentations of the fakes."""

    z: Tensor
    labels: Labels
    draws: Draws


class Inputs(NamedTuple):
    """Inputs of one iteration; those of the D steps in their order."""

    latents: Latents
    discriminator: Iterable[DInputs]
    generator: GInputs


class Iteration:
    """Runs iterations by number; each is a function of (seed, step), given the nets.

    Args:
        networks: what is trained.
        batches: reals by D step.
        noise: draws z, labels and the random numbers of augmentations and regularizers.
        state: its meters receive what the steps measure.
        config: of the run.
        ranks: those that run iterations together. Everything random is drawn for the whole batch, of which each takes
            its part, as it takes its part of the reals.

    Attributes:
        remarks: lines for the log, which whoever logs takes away.

    Raises:
        ConfigError: as in :class:`fastdat.training.steps.Steps`.
    """

    def __init__(
        self,
        networks: Networks,
        batches: Batches,
        noise: Noise,
        state: RunState,
        config: TrainConfig,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:
        self.batches = batches
        self.remarks: list[str] = []
        optimizers = [networks.opt_g, networks.opt_d]
        self.steps = Steps(
            networks.G, networks.D, networks.opt_g, networks.opt_d, config, self.remarks.append, ranks
        )
        self._ema = networks.ema
        self._rate = LearningRate(optimizers, config.lr_decay, config.steps)
        strengths = self.steps.regularizers.strengths
        self._cosine = Cosine(config.cosine, config.steps, optimizers, strengths, networks.ema)
        if networks.device.type == "cuda":  # captured or not, the same rates to the last bit
            hold_rates_in_tensors(optimizers)
        self._noise, self._state, self._config, self._ranks = noise, state, config, ranks

    def run(self, step: int) -> None:
        """The iteration that follows ``step`` G steps."""
        self.schedule(step)
        self.body(self.fill(step))

    def schedule(self, step: int) -> None:
        """Set the rates, and all else that moves, for the iteration after ``step`` G steps."""
        self._rate.set(step)
        self._cosine.set(step)

    def put_back(self) -> None:
        """Give the optimizers the rates and betas they came with: whoever uses them again, to resume the run or to
        train on, gives them as they were."""
        self._rate.put_back()
        self._cosine.put_back()

    def close(self) -> None:
        """End the thread that gathers batches, if there is one, and put back what moves."""
        close = getattr(self.batches, "close", None)
        if close is not None:
            close()
        self.put_back()

    def fill(self, step: int) -> Inputs:
        """Fetch the inputs of iteration ``step``: reals, noise, labels.

        The reals of a D step are fetched when the body comes to it, so that one batch is in memory at a time.
        """
        n_dis = self._config.n_dis
        d_steps = range(step * n_dis, (step + 1) * n_dis)
        of_g = GInputs(*self._noise_of(G_STEP, step), self._draws(AUGMENT_G, step))
        return Inputs(self._latents(d_steps), map(self._d_inputs, d_steps), of_g)

    def body(self, inputs: Inputs) -> None:
        """Update D ``n_dis`` times, then G once, then the average of G."""
        reals: Reals | None = None
        z, labels = inputs.latents
        for i, (xf, d) in enumerate(zip(self.steps.fakes(z, labels), inputs.discriminator, strict=True)):
            loss, info = self.steps.discriminator(
                d.reals,
                xf,
                d.labels_real,
                tuple(of_step[i] for of_step in labels),
                d.draws_real,
                d.draws_fake,
                step=d.turn,
                draws=d.draws,
            )
            self._state.meter_d.add({"loss_d": loss, **measurements(info, self.steps.attack)})
            reals = Reals(d.reals, d.labels_real, d.draws_real)
        g = inputs.generator
        loss = self.steps.generator(g.z, g.labels, g.draws, reals)
        self._state.meter_g.add({"loss_g": loss})
        if self._ema is not None:
            self._ema.update()

    def _latents(self, d_steps: range) -> Latents:
        """z and labels of each D step depend on its number alone."""
        drawn = [self._noise_of(D_STEP, d_step) for d_step in d_steps]
        labels = zip(*(labels for _, labels in drawn), strict=True)
        return Latents(torch.stack([z for z, _ in drawn]), tuple(torch.stack(of_all) for of_all in labels))

    def _d_inputs(self, d_step: int) -> DInputs:
        reals = self.batches.batch(d_step)
        return self._beside(d_step, reals, reals)

    def _beside(self, d_step: int, reals: Any, like: Tensor) -> DInputs:
        """Inputs of a D step with these reals; ``like`` has their shape."""
        return DInputs(
            self.steps.regularizers.turn(d_step),
            reals,
            self._labels_real(d_step),
            self._draws(AUGMENT_REAL, d_step),
            self._draws(AUGMENT_FAKE, d_step),
            self._drawn_by_terms(d_step, like),
        )

    def _labels_real(self, d_step: int) -> Labels:
        batches: Any = self.batches  # only batches for conditional nets have labels
        return (batches.labels(d_step),) if self._noise.classes else ()

    def _drawn_by_terms(self, d_step: int, x: Tensor) -> TermDraws:
        if not self._config.regularizers:
            return ()
        whole = x if not self._ranks else x.new_empty(1).expand(self._config.batch_size, *x.shape[1:])
        drawn = self.steps.regularizers.draws(d_step, whole, self._noise.generator(REGULARIZERS, d_step))
        return tuple({name: self._ranks.part(rows) for name, rows in each.items()} for each in drawn)

    def _noise_of(self, stream: int, step: int) -> tuple[Tensor, Labels]:
        count, part = self._config.batch_size, self._ranks.part
        labels = self._noise.labels(stream, step, count)
        return part(self._noise.draw(stream, step, count)), tuple(map(part, labels))

    def _draws(self, stream: int, step: int) -> Draws:
        if not self.steps.augments:
            return ()
        return (self._ranks.part(self._noise.uniform(stream, step, self._config.batch_size, DRAWS)),)
