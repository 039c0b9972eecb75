"""What a run of Fig. 3 found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdat.config import DATConfig
from fastdat.data.mixture import Mixture
from fastdat.experiments.plan import MIXTURES, Fig3Config
from fastdat.metrics.modes import Coverage


@dataclass(frozen=True)
class Measurement:
    """An arm's state after ``iteration`` iterations."""

    iteration: int
    coverage: dict[str, Coverage]
    """Of every seed (seeds, ...), by mixture."""
    points: Tensor | None
    """Points of the first seed (mixtures, n, 2), at checkpoints."""


@dataclass(frozen=True)
class Arm:
    """One arm, trained."""

    name: str
    attack: DATConfig
    measurements: tuple[Measurement, ...]
    first_seconds: float
    """Of the first iteration, which compiles."""
    seconds: float
    """Of the others, measurements left out."""

    @property
    def members(self) -> int:
        """GANs trained at once."""
        return sum(len(c.modes) for c in self.measurements[0].coverage.values())

    @property
    def milliseconds(self) -> float:
        """Of one iteration of all members, the first left out; 0 where there is no other."""
        others = self.measurements[-1].iteration - 1
        return 1e3 * self.seconds / others if others else 0.0

    def at(self, iteration: int) -> Measurement:
        """The measurement made at ``iteration``."""
        return next(m for m in self.measurements if m.iteration == iteration)


@dataclass(frozen=True)
class Result:
    """What a run found."""

    config: Fig3Config
    compiled: bool
    device: torch.device
    arms: tuple[Arm, ...]
    seconds: float
    """Of the whole run, pictures left out."""
    mixtures: tuple[Mixture, ...] = MIXTURES
