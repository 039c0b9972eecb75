"""One training iteration: ``n_dis`` D steps, one G step, the running average, and what they measure.

Everything random, and everything that comes from outside, is fetched by :meth:`Iteration.fill`; :meth:`Iteration.body`
only computes on tensors, and draws what regularizers need from a generator that ``fill`` has seeded. A subclass may so
replace the body by a CUDA graph that is captured once and replayed, with ``fill`` copying into the graph's input
buffers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastdat.nets.augmentation import DRAWS
from fastdat.training.batches import Batches
from fastdat.training.cosine import Cosine
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
from fastdat.training.schedule import LearningRate
from fastdat.training.state import RunState
from fastdat.training.steps import Draws, Labels, Reals, Steps, measurements
from fastdat.training.train_config import TrainConfig


@dataclass(frozen=True)
class DInputs:
    """Inputs of one D step: its number, reals (N, C, H, W), z (N, nz), the labels and augmentations of reals and fakes,
    and what regularizers draw from, if there are any."""

    step: int
    reals: Tensor
    z: Tensor
    labels_real: Labels
    labels_fake: Labels
    draws_real: Draws
    draws_fake: Draws
    generator: torch.Generator | None


@dataclass(frozen=True)
class GInputs:
    """Inputs of one G step: z (N, nz), and the labels and augmentations of the fakes."""

    z: Tensor
    labels: Labels
    draws: Draws


@dataclass(frozen=True)
class Inputs:
    """Inputs of one iteration; those of the D steps in their order."""

    discriminator: Iterable[DInputs]
    generator: GInputs


class Iteration:
    """Runs iterations by number; each is a function of (seed, step), given the nets.

    Args:
        networks: what is trained.
        batches: reals by D step.
        noise: draws z, labels and the random numbers of augmentations.
        state: its meters receive what the steps measure.
        config: of the run.

    Raises:
        ConfigError: as in :class:`fastdat.training.steps.Steps`.
    """

    def __init__(
        self, networks: Networks, batches: Batches, noise: Noise, state: RunState, config: TrainConfig
    ) -> None:
        self.batches = batches
        self.steps = Steps(networks.G, networks.D, networks.opt_g, networks.opt_d, config)
        self._ema = networks.ema
        optimizers = [networks.opt_g, networks.opt_d]
        self._rate = LearningRate(optimizers, config.lr_decay, config.steps)
        strengths = self.steps.regularizers.strengths
        self._cosine = Cosine(config.cosine, config.steps, optimizers, strengths, networks.ema)
        self._noise, self._state, self._config = noise, state, config

    def run(self, step: int) -> None:
        """The iteration that follows ``step`` G steps."""
        self._rate.set(step)
        self._cosine.set(step)
        self.body(self.fill(step))

    def fill(self, step: int) -> Inputs:
        """Fetch the inputs of iteration ``step``: reals, noise, labels.

        The reals of a D step are fetched when the body comes to it, so that one batch is in memory at a time.
        """
        n_dis = self._config.n_dis
        d_steps = range(step * n_dis, (step + 1) * n_dis)
        of_g = GInputs(*self._noise_of(G_STEP, step), self._draws(AUGMENT_G, step))
        return Inputs(map(self._d_inputs, d_steps), of_g)

    def body(self, inputs: Inputs) -> None:
        """Update D ``n_dis`` times, then G once, then the average of G."""
        reals: Reals | None = None
        for d in inputs.discriminator:
            loss, info = self.steps.discriminator(
                d.reals,
                d.z,
                d.labels_real,
                d.labels_fake,
                d.draws_real,
                d.draws_fake,
                step=d.step,
                generator=d.generator,
            )
            self._state.meter_d.add({"loss_d": loss, **measurements(info, self.steps.attack)})
            reals = Reals(d.reals, d.labels_real, d.draws_real)
        g = inputs.generator
        loss = self.steps.generator(g.z, g.labels, g.draws, reals)
        self._state.meter_g.add({"loss_g": loss})
        if self._ema is not None:
            self._ema.update()

    def _d_inputs(self, d_step: int) -> DInputs:
        batches: Any = self.batches  # only batches for conditional nets have labels
        reals = batches.batch(d_step)
        labels_real = (batches.labels(d_step),) if self._noise.classes else ()
        z, labels_fake = self._noise_of(D_STEP, d_step)
        draws = self._draws(AUGMENT_REAL, d_step), self._draws(AUGMENT_FAKE, d_step)
        drawn_from = self._noise.generator(REGULARIZERS, d_step) if self._config.regularizers else None
        return DInputs(d_step, reals, z, labels_real, labels_fake, *draws, drawn_from)

    def _noise_of(self, stream: int, step: int) -> tuple[Tensor, Labels]:
        count = self._config.batch_size
        return self._noise.draw(stream, step, count), self._noise.labels(stream, step, count)

    def _draws(self, stream: int, step: int) -> Draws:
        if not self.steps.augments:
            return ()
        return (self._noise.uniform(stream, step, self._config.batch_size, DRAWS),)
