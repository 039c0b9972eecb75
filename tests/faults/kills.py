"""kill -9: at every change of a run's files in turn, and at random moments, several times a run."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.injector import Action, Injector
from tests.faults.toy_runs import PRESETS, Ended, difference, forked, problems, train
from tests.training.runs import results


@dataclass
class Kills:
    """What came out of all rounds; a round is a kill.

    Args:
        runs: finished runs, each compared with an unbroken one.
        rounds: kills.
        inside_a_checkpoint_write: kills between the first byte of a checkpoint and its second name.
        losses: what went wrong, in words.
    """

    runs: int = 0
    rounds: int = 0
    inside_a_checkpoint_write: int = 0
    losses: list[str] = field(default_factory=list)


class Killer:
    """Kills runs of one preset in ``folder`` until they are done, and compares them with an unbroken one."""

    def __init__(self, folder: Path, name: str, injector: Injector) -> None:
        self._folder, self._name, self._injector = folder, name, injector
        straight = folder / f"straight-{name}"
        begun = time.monotonic()
        injector.arm(straight, 0, Action.COUNT)
        train(straight, name)  # in this process: its forks then need not import anything
        self.calls, self.seconds = injector.calls, time.monotonic() - begun
        injector.disarm()
        begun = time.monotonic()
        assert not forked(lambda: train(folder / f"warm-{name}", name), folder / "note").code
        self.seconds = time.monotonic() - begun
        self._straight: dict[str, Any] = results(straight)

    def run(self, kills: Kills, moments: Iterator[int | float]) -> None:
        """Kill one run at each moment, a number of a call or seconds, until it is done or there are no more moments."""
        run = self._folder / "killed"
        shutil.rmtree(run, ignore_errors=True)
        for moment in moments:
            before = _unfinished(run)
            ended = self._killed(run, moment)
            if ended.code != -signal.SIGKILL:
                if ended.code:
                    kills.losses.append(f"{self._name}, to be killed at {moment}: {ended.error}")
                break
            kills.rounds += 1
            kills.inside_a_checkpoint_write += bool(_unfinished(run) - before)
            kills.losses += [f"{self._name}, killed at {moment}: {problem}" for problem in problems(run)]
        ended = forked(partial(train, run, self._name), self._folder / "note")
        if ended.code:
            kills.losses.append(f"{self._name}: cannot resume: {ended.error}")
        elif problem := difference(run, self._straight):
            kills.losses.append(f"{self._name}: {problem}")
        kills.runs += 1

    def _killed(self, run: Path, moment: int | float) -> Ended:
        """Begin or resume ``run`` and kill it, unless it ends before."""

        def at_a_call() -> None:
            self._injector.arm(run, int(moment), Action.KILL)
            train(run, self._name)

        if isinstance(moment, int):
            return forked(at_a_call, self._folder / "note")
        return forked(partial(train, run, self._name), self._folder / "note", kill_after=moment)


def _unfinished(run: Path) -> set[tuple[int, int]]:
    """Inode and time of each checkpoint that is half written, or that has not got its second name yet."""
    folder = run / "checkpoints"
    latest = folder / "latest.pt"
    files = list(folder.glob(".*.tmp"))
    if latest.exists() and not any(latest.samefile(path) for path in folder.glob("step-*.pt")):
        files.append(latest)
    return {(file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def campaign(folder: Path, injector: Injector, rounds: int, stride: int, until: float) -> Kills:
    """All kinds of kills.

    Args:
        folder: for the runs.
        rounds: kills at random moments, half of them at random calls, half after a random time.
        stride: every so many of the calls of a whole run is the moment of a kill; 1: all of them.
        until: no further round begins after this value of ``time.monotonic()``.
    """
    kills, draws = Kills(), random.Random(20)
    killers = {name: Killer(folder, name, injector) for name in PRESETS}
    for name, killer in killers.items():
        for call in range(
            1 + (name != PRESETS[0]), killer.calls + 1, stride if name == PRESETS[0] else 3 * stride
        ):
            if time.monotonic() < until:
                killer.run(kills, iter([call]))
    random_ones = kills.rounds
    while kills.rounds - random_ones < rounds and time.monotonic() < until:
        name = PRESETS[draws.random() < 0.3]
        killers[name].run(kills, _moments(draws, killers[name]))
    return kills


def _moments(draws: random.Random, killer: Killer) -> Iterator[int | float]:
    """At most five in one run."""
    for _ in range(draws.randint(1, 5)):
        yield (
            draws.randint(1, killer.calls // 2) if draws.random() < 0.5 else draws.uniform(0, killer.seconds)
        )
