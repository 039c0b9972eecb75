"""``fastdat reproduce fig3``: train all arms, then picture, table and JSON. The choices made are in ``plan``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from fastdat.experiments.ensemble import Ensemble
from fastdat.experiments.plan import ARMS, FULL, MEASURED, MIXTURES, SHOWN, Fig3Config
from fastdat.experiments.results import Arm, Measurement, Result
from fastdat.metrics.modes import coverage
from fastdat.training.build import choose_device
from fastdat.training.display import Display, display_for
from fastdat.util.errors import NonFiniteError, RunFolderError

__all__ = ["FULL", "Fig3Config", "run"]


def run(config: Fig3Config, outdir: str | Path) -> Result:
    """Train all arms; write ``fig3.png``, ``fig3.json`` and ``fig3.txt`` into ``outdir``, and print the table.

    On one machine and one version of torch the same config gives the same numbers; a shorter run is the beginning
    of a longer one.

    Raises:
        ConfigError: no GPU where the config asks for one.
        RunFolderError: ``outdir`` cannot be made or written.
        NonFiniteError: an arm diverged.
        ModuleNotFoundError: matplotlib or rich is missing; both come with ``fastdat[train]``.
    """
    from fastdat.experiments import picture, report  # before the work: they need matplotlib and rich

    began = time.perf_counter()
    outdir, device = Path(outdir), choose_device(config.device)
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot use {outdir} as output folder: {error.strerror or error}") from error
    progress = _Progress(config)
    with progress.display as display, _one_thread():
        display.note(
            f"fig3: {len(ARMS)} arms x {len(MIXTURES)} mixtures x {config.seeds} seed{'s' * (config.seeds > 1)}, "
            f"{config.iterations:,} iterations each, on {device.type}; "
            f"modes found: {' / '.join(mixture.name for mixture in MIXTURES)}"
        )
        compiled = config.compile and _can_compile(device, display)
        arms = tuple(_train(config, name, device, compiled, progress) for name in ARMS)
    result = Result(config, compiled, device, arms, time.perf_counter() - began)
    report.write(result, outdir)
    picture.write(result, outdir / "fig3.png")
    report.show(result)
    return result


def _train(config: Fig3Config, name: str, device: torch.device, compiled: bool, progress: _Progress) -> Arm:
    progress.begin(name, compiled)
    attack = ARMS[name]
    seeds = range(config.seeds)
    ensemble = Ensemble(MIXTURES, seeds, attack, config.recipe, device=device, compile=compiled)
    first = _timed(partial(ensemble.train, 1), device)
    done, seconds, measured = 1, 0.0, []
    for iteration in config.measurements:
        seconds += _timed(partial(ensemble.train, iteration - done), device)
        done = iteration
        points = ensemble.sample(MEASURED)
        if not torch.isfinite(points).all():
            raise NonFiniteError(f"{name}: G gives NaN or infinity after {iteration} iterations")
        found = {
            mixture.name: coverage(x, mixture) for mixture, x in zip(MIXTURES, points.cpu(), strict=True)
        }
        shown = points[:, 0, :SHOWN].cpu() if iteration in config.checkpoints else None
        measured.append(Measurement(iteration, found, shown))
        progress.advance(measured[-1])
    return Arm(name, attack, tuple(measured), first, seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within it torch's CPU kernels run on one thread, so that the numbers do not depend on how many cores there are.

    Matrices this small have little to share out: on two cores that others used too, two threads took three to
    four times as long as one (measured).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds that ``work`` takes, its kernels included."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _can_compile(device: torch.device, display: Display) -> bool:
    """Whether torch.compile works here at all: it needs a C++ compiler and Python's headers, or Triton on a GPU."""
    try:
        torch.compile(lambda x: (x + 1).sin(), fullgraph=True)(torch.zeros(64, device=device))
    except Exception as error:  # whatever the machine lacks, the run is possible without
        reason = str(error).strip().splitlines() or [type(error).__name__]
        display.note(f"torch.compile does not work here ({reason[0]}): running without, about half as fast")
        return False
    return True


class _Progress:
    """What the run shows: iterations of all arms together, and the latest coverage."""

    def __init__(self, config: Fig3Config) -> None:
        self._config = config
        self._total = len(ARMS) * config.iterations
        self.display = display_for(self._total)
        self._before = -config.iterations
        self._arm = ""
        self._began = time.perf_counter()

    def begin(self, arm: str, compiled: bool) -> None:
        """``arm`` starts."""
        self._arm = arm
        self._before += self._config.iterations
        self._show(0, f"{'compiling' if compiled else 'starting'}  {arm}")

    def advance(self, measurement: Measurement) -> None:
        """``measurement`` was made of the current arm."""
        done = self._before + measurement.iteration
        left = (time.perf_counter() - self._began) * (self._total - done) / done
        found = " / ".join(f"{c.modes.double().mean():.1f}" for c in measurement.coverage.values())
        self.display.advance(done)
        self._show(measurement.iteration, f"ETA {timedelta(seconds=round(left))}  {found}  {self._arm}")

    def _show(self, iteration: int, text: str) -> None:
        self.display.stats(f"{iteration}/{self._config.iterations}  {text}")
