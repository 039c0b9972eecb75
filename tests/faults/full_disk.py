"""A full disk: one call that changes a run's files fails, or all from one on; then there is room again."""

from __future__ import annotations

import errno
import re
import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults.injector import Action, Injector
from tests.faults.toy_runs import Ended, difference, forked, problems, train
from tests.training.runs import results

#: What the message of a run that stopped must say: what could not be written, why, and what to do.
_CLEAR = re.compile(r"^RunFolderError: .*(cannot|could not) .*/.*No space left on device", re.DOTALL)


@dataclass
class FullDisk:
    """What came out.

    Args:
        faults: calls that failed, by their kind.
        survived: runs that went on, for example because only a file that is not needed could not be removed.
        stopped: runs that stopped with a clear message.
        losses: what went wrong, in words.
    """

    faults: dict[str, int] = field(default_factory=dict)
    survived: int = 0
    stopped: int = 0
    losses: list[str] = field(default_factory=list)


def campaign(folder: Path, injector: Injector, stride: int, until: float) -> FullDisk:
    """Every ``stride``-th of the calls of a whole run fails, alone and together with all that follow."""
    found = FullDisk()
    straight = folder / "straight"
    injector.arm(straight, 0, Action.COUNT)
    train(straight)
    calls = injector.calls
    injector.disarm()
    unbroken = results(straight)
    for action in (Action.FAIL_ONCE, Action.FAIL_FROM):
        for call in range(1, calls + 1, stride):
            if time.monotonic() > until:
                return found
            run = folder / "full"
            shutil.rmtree(run, ignore_errors=True)
            ended, what = _with_fault(run, injector, call, action, folder)
            losses = _judge(found, ended, run)
            if forked(partial(train, run), folder / "note").code:
                losses.append(f"cannot resume: {(folder / 'note').read_text()}")
            elif problem := difference(run, unbroken):
                losses.append(problem)
            kind = what.partition(" ")[0]
            found.faults[kind] = found.faults.get(kind, 0) + 1
            found.losses += [f"{action.name}, call {call} ({what}): {loss}" for loss in losses]
    return found


def _with_fault(run: Path, injector: Injector, call: int, action: Action, folder: Path) -> tuple[Ended, str]:
    """How a run ends whose call fails, and which one it was."""
    told = folder / "call"

    def with_fault() -> None:
        injector.arm(run, call, action, errno.ENOSPC)
        try:
            train(run)
        finally:
            told.write_text(injector.call)
            injector.disarm()

    return forked(with_fault, folder / "note"), told.read_text()


def _judge(found: FullDisk, ended: Ended, run: Path) -> list[str]:
    """What is wrong with a run that met a full disk."""
    if not ended.code:
        found.survived += 1
        return problems(run)
    if _CLEAR.match(ended.error) is None:
        return [f"ended with {ended.error}", *problems(run)]
    found.stopped += 1
    return problems(run)
