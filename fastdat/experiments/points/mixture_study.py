"""Compare attacks on Gaussian mixtures: train an ensemble of GANs for each arm, and measure what modes it covers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from fastdat.experiments.points.ensemble import Ensemble
from fastdat.experiments.points.study import MEASURED, SHOWN, Arm, Measurement, Study, StudyResult, Times
from fastdat.experiments.points.study_progress import StudyProgress
from fastdat.experiments.points.study_state import ArmFile, ArmState
from fastdat.experiments.training_origin import here, joined
from fastdat.metrics.modes import coverage
from fastdat.training.display import Display
from fastdat.util.errors import NonFiniteError


def run_study(
    study: Study,
    device: torch.device,
    compile: bool,
    folder: Path | None = None,
    *,
    leave_out_diverged: bool = False,
) -> StudyResult:
    """Train and measure all arms, and show the progress.

    On one machine and with one version of torch, the same study gives the same numbers, and a shorter study gives the
    beginning of a longer one.

    Args:
        study: what is compared.
        device: where the GANs are trained.
        compile: compile the training steps, where that is possible.
        folder: keeps the state of the study after each measurement. A study that was stopped goes on from there, with
            the numbers that it would have had, and a finished one is only read. None: nothing is kept.
        leave_out_diverged: go on with the next arm where one diverges; the result says so. It may have no arm left.

    Raises:
        NonFiniteError: the generators of an arm diverged, without ``leave_out_diverged``.
        RunFolderError: ``folder`` holds a study with other settings, or cannot be used.
    """
    progress = StudyProgress(study)
    with progress.display as display, one_thread():
        display.note(
            f"{study.name}: {len(study.arms)} arms x {len(study.mixtures)} mixtures x "
            f"{study.seeds} seed{'s' * (study.seeds > 1)}, "
            f"{study.iterations:,} iterations each, on {device.type}; "
            f"modes found: {' / '.join(mixture.name for mixture in study.mixtures)}"
        )
        compiled = compile and _can_compile(device, display)
        files = {name: ArmFile(folder, study, name, compiled, device) for name in study.arms if folder}
        states = {name: file.read() for name, file in files.items()}  # refuses a wrong folder before the work
        arms, diverged = [], {}
        for name in study.arms:
            file, state = files.get(name), states.get(name, ArmState())
            try:
                arms.append(_train_arm(study, name, device, compiled, progress, file, state))
            except NonFiniteError as error:
                diverged[name] = str(error)
                if not leave_out_diverged:
                    raise
                display.note(f"{error}: left out")
    seconds = sum(arm.times.everything for arm in arms)
    return StudyResult(study, compiled, device, tuple(arms), seconds, diverged)


def _train_arm(
    study: Study,
    name: str,
    device: torch.device,
    compiled: bool,
    progress: StudyProgress,
    file: ArmFile | None,
    state: ArmState,
) -> Arm:
    attack, recipe = study.arms[name], study.recipe_of(name)
    rest = study.measurements[len(state.measurements) :]
    done = study.measurements[len(state.measurements) - 1] if state.measurements else 0
    progress.begin(name, compiled, done)
    if rest:
        start = time.perf_counter()
        ensemble = Ensemble(
            study.mixtures, range(study.seeds), attack, recipe, device=device, compile=compiled
        )
        origin = joined([state.origin, here(device)])
        if state.ensemble is not None:
            ensemble.restore(state.ensemble)
        for iteration in rest:
            times = _train(ensemble, iteration - done, iteration == rest[0], device)
            measured = (*state.measurements, _measure(study, name, ensemble, iteration))
            done, end = iteration, time.perf_counter()
            times += Times(everything=end - start)
            start = end
            unfinished = file is not None and iteration != study.iterations
            saved = ensemble.state() if unfinished else None
            state = ArmState(measured, state.times + times, saved, origin)
            if file is not None:
                file.write(state)
            progress.advance(measured[-1])
    return Arm(name, attack, recipe, state.measurements, state.times, state.origin)


def _train(ensemble: Ensemble, iterations: int, compiles: bool, device: torch.device) -> Times:
    """Train; the first iteration of a process is timed apart, since it ``compiles``."""
    first = _timed(partial(ensemble.train, 1), device) if compiles else 0.0
    rest = iterations - compiles
    return Times(first, _timed(partial(ensemble.train, rest), device), rest)


def _measure(study: Study, name: str, ensemble: Ensemble, iteration: int) -> Measurement:
    points = ensemble.sample(MEASURED)
    if not torch.isfinite(points).all():
        raise NonFiniteError(f"{name}: G gives NaN or infinity after {iteration} iterations")
    found = {
        mixture.name: coverage(x, mixture) for mixture, x in zip(study.mixtures, points.cpu(), strict=True)
    }
    shown = points[:, 0, :SHOWN].cpu().clone() if iteration in study.checkpoints else None
    return Measurement(iteration, found, shown)


@contextmanager
def one_thread() -> Iterator[None]:
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
