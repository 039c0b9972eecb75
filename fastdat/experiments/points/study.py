"""A comparison on Gaussian mixtures: what is compared, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fastdat.data.mixture import Mixture
from fastdat.experiments.points.ensemble import Attack, Recipe
from fastdat.experiments.training_origin import Origin, joined
from fastdat.metrics.modes import Coverage
from fastdat.regularizers.term import Term

#: How many points are generated for each measurement, and how many of them are kept for a picture.
MEASURED, SHOWN = 10_000, 2_000


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        name: the experiment, for messages.
        arms: name -> D's attack.
        mixtures: the real data.
        seeds: GANs of each arm and mixture; their seeds are 0, 1, ...
        iterations: training iterations of each GAN.
        measurements: iterations after which coverage is measured, in ascending order; the last is ``iterations``.
        checkpoints: the measurements whose points are kept.
        recipe: nets and training of each GAN.
        regularizers: name of an arm -> terms of D's loss, for the arms that have some.
        recipes: name of an arm -> nets and training, for the arms in which they differ from ``recipe``.
    """

    name: str
    arms: Mapping[str, Attack]
    mixtures: tuple[Mixture, ...]
    seeds: int
    iterations: int
    measurements: tuple[int, ...]
    checkpoints: tuple[int, ...]
    recipe: Recipe
    regularizers: Mapping[str, tuple[Term, ...]] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    def recipe_of(self, arm: str) -> Recipe:
        """Nets and training of an arm, with the terms of D's loss."""
        return replace(self.recipes.get(arm, self.recipe), regularizers=self.regularizers.get(arm, ()))


@dataclass(frozen=True)
class Measurement:
    """The state of an arm after ``iteration`` iterations.

    Args:
        iteration: G steps so far.
        coverage: mixture name -> coverage of every seed (seeds, ...).
        points: generated points of the first seed (mixtures, n, 2); None between checkpoints.
    """

    iteration: int
    coverage: Mapping[str, Coverage]
    points: Tensor | None


@dataclass(frozen=True)
class Times:
    """How long an arm took, in seconds. A run that was stopped and went on compiles again in its next iteration.

    Args:
        first: of the first iterations of each process, which include compilation.
        others: of all other iterations, without measurements.
        timed: how many iterations ``others`` is the time of.
        everything: with measurements and files.
    """

    first: float = 0.0
    others: float = 0.0
    timed: int = 0
    everything: float = 0.0

    def __add__(self, other: Times) -> Times:
        return Times(
            self.first + other.first,
            self.others + other.others,
            self.timed + other.timed,
            self.everything + other.everything,
        )


@dataclass(frozen=True)
class Arm:
    """A trained arm.

    Args:
        name, attack, recipe: from the study.
        measurements: in ascending order.
        times: of training and measurements.
        origin: where it was trained.
    """

    name: str
    attack: Attack
    recipe: Recipe
    measurements: tuple[Measurement, ...]
    times: Times
    origin: Origin = field(default_factory=Origin)

    @property
    def members(self) -> int:
        """How many GANs were trained together."""
        return sum(len(c.modes) for c in self.measurements[0].coverage.values())

    @property
    def milliseconds(self) -> float:
        """Time of one iteration of all members, without the first iteration; 0 if there is no other."""
        return 1e3 * self.times.others / self.times.timed if self.times.timed else 0.0

    def at(self, iteration: int) -> Measurement:
        """The measurement after ``iteration`` iterations."""
        return next(m for m in self.measurements if m.iteration == iteration)

    @property
    def last(self) -> Measurement:
        """The measurement at the end of the training."""
        return self.measurements[-1]


@dataclass(frozen=True)
class StudyResult:
    """A study and what it found.

    Args:
        study: what was compared.
        compiled: whether the training steps were compiled.
        device: where the GANs were trained.
        arms: in the order of the study.
        seconds: time of the training and the measurements, also of those in earlier processes.
        diverged: name of an arm -> what happened, for arms that are left out because G gave NaN or infinity.
    """

    study: Study
    compiled: bool
    device: torch.device
    arms: tuple[Arm, ...]
    seconds: float
    diverged: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> Origin:
        """That of all arms."""
        return joined(arm.origin for arm in self.arms)

    def arm(self, name: str) -> Arm:
        """The arm with this name."""
        return next(arm for arm in self.arms if arm.name == name)
