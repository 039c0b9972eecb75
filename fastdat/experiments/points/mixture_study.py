"""Compare attacks on Gaussian mixtures: train an ensemble of GANs for each arm, and measure what modes it covers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import torch
from torch import Tensor

from fastdat.data.mixture import Mixture
from fastdat.experiments.points.ensemble import Attack, Ensemble, Recipe
from fastdat.metrics.modes import Coverage, coverage
from fastdat.regularizers.term import Term
from fastdat.training.display import Display, display_for
from fastdat.util.errors import NonFiniteError

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
class Arm:
    """A trained arm.

    Args:
        name, attack, regularizers: from the study.
        measurements: in ascending order.
        first_seconds: time of the first iteration, which includes compilation.
        seconds: time of all other iterations, without measurements.
    """

    name: str
    attack: Attack
    regularizers: tuple[Term, ...]
    measurements: tuple[Measurement, ...]
    first_seconds: float
    seconds: float

    @property
    def members(self) -> int:
        """How many GANs were trained together."""
        return sum(len(c.modes) for c in self.measurements[0].coverage.values())

    @property
    def milliseconds(self) -> float:
        """Time of one iteration of all members, without the first iteration; 0 if there is no other."""
        others = self.measurements[-1].iteration - 1
        return 1e3 * self.seconds / others if others else 0.0

    def at(self, iteration: int) -> Measurement:
        """The measurement after ``iteration`` iterations."""
        return next(m for m in self.measurements if m.iteration == iteration)


@dataclass(frozen=True)
class StudyResult:
    """A study and what it found.

    Args:
        study: what was compared.
        compiled: whether the training steps were compiled.
        device: where the GANs were trained.
        arms: in the order of the study.
        seconds: time of the whole study.
    """

    study: Study
    compiled: bool
    device: torch.device
    arms: tuple[Arm, ...]
    seconds: float


def run_study(study: Study, device: torch.device, compile: bool) -> StudyResult:
    """Train and measure all arms, and show the progress.

    On one machine and with one version of torch, the same study gives the same numbers, and a shorter study gives the
    beginning of a longer one.

    Raises:
        NonFiniteError: the generators of an arm diverged.
    """
    start = time.perf_counter()
    progress = _Progress(study)
    with progress.display as display, _one_thread():
        display.note(
            f"{study.name}: {len(study.arms)} arms x {len(study.mixtures)} mixtures x "
            f"{study.seeds} seed{'s' * (study.seeds > 1)}, "
            f"{study.iterations:,} iterations each, on {device.type}; "
            f"modes found: {' / '.join(mixture.name for mixture in study.mixtures)}"
        )
        compiled = compile and _can_compile(device, display)
        arms = tuple(_train_arm(study, name, device, compiled, progress) for name in study.arms)
    return StudyResult(study, compiled, device, arms, time.perf_counter() - start)


def _train_arm(study: Study, name: str, device: torch.device, compiled: bool, progress: _Progress) -> Arm:
    progress.begin(name, compiled)
    attack, terms = study.arms[name], study.regularizers.get(name, ())
    recipe, seeds = replace(study.recipe, regularizers=terms), range(study.seeds)
    if compiled:
        torch.compiler.reset()  # torch keeps eight graphs of a function, and all arms' are graphs of vmap's one
    ensemble = Ensemble(study.mixtures, seeds, attack, recipe, device=device, compile=compiled)
    first_seconds = _timed(partial(ensemble.train, 1), device)
    done, seconds, measured = 1, 0.0, []
    for iteration in study.measurements:
        seconds += _timed(partial(ensemble.train, iteration - done), device)
        done = iteration
        points = ensemble.sample(MEASURED)
        if not torch.isfinite(points).all():
            raise NonFiniteError(f"{name}: G gives NaN or infinity after {iteration} iterations")
        found = {
            mixture.name: coverage(x, mixture)
            for mixture, x in zip(study.mixtures, points.cpu(), strict=True)
        }
        shown = points[:, 0, :SHOWN].cpu() if iteration in study.checkpoints else None
        measured.append(Measurement(iteration, found, shown))
        progress.advance(measured[-1])
    return Arm(name, attack, terms, tuple(measured), first_seconds, seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch's CPU kernels on one thread, so that the numbers do not depend on the number of cores.

    The matrices are too small to share out: on two busy cores, two threads took three to four times as long as one
    (measured).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Do ``work`` and return the seconds it took, including its kernels on the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _can_compile(device: torch.device, display: Display) -> bool:
    """Whether torch.compile works on this machine: it needs a C++ compiler and Python's headers, or Triton on a GPU."""
    try:
        torch.compile(lambda x: (x + 1).sin(), fullgraph=True)(torch.zeros(64, device=device))
    except Exception as error:  # of any kind: without torch.compile, the study is only slower
        reason = str(error).strip().splitlines() or [type(error).__name__]
        display.note(f"torch.compile does not work here ({reason[0]}): running without, about half as fast")
        return False
    return True


class _Progress:
    """Shows how many iterations of all arms are done, and the latest number of modes found."""

    def __init__(self, study: Study) -> None:
        self._iterations = study.iterations
        self._total = len(study.arms) * study.iterations
        self.display = display_for(self._total)
        self._before = -study.iterations  # iterations of the earlier arms
        self._arm = ""
        self._start = time.perf_counter()

    def begin(self, arm: str, compiled: bool) -> None:
        """Show that ``arm`` starts."""
        self._arm = arm
        self._before += self._iterations
        self._show(0, f"{'compiling' if compiled else 'starting'}  {arm}")

    def advance(self, measurement: Measurement) -> None:
        """Show the latest ``measurement`` of the current arm."""
        done = self._before + measurement.iteration
        left = (time.perf_counter() - self._start) * (self._total - done) / done
        modes = " / ".join(f"{c.modes.double().mean():.1f}" for c in measurement.coverage.values())
        self.display.advance(done)
        self._show(measurement.iteration, f"ETA {timedelta(seconds=round(left))}  {modes}  {self._arm}")

    def _show(self, iteration: int, text: str) -> None:
        self.display.stats(f"{iteration}/{self._iterations}  {text}")
