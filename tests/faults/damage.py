"""Flipped bits and cut files: the checkpoint before the damaged one is used, and this is said."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.toy_runs import SETTINGS, difference, forked, problems, train
from tests.training.runs import read_log, results


@dataclass
class Damage:
    """What came out.

    Args:
        rounds: damaged runs, by what was done to their latest checkpoint.
        used: how often which checkpoint took its place, by how many there were before it.
        losses: what went wrong, in words.
    """

    rounds: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)


def _flip(content: bytearray, draws: random.Random) -> bytearray:
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    return content


def _cut(content: bytearray, draws: random.Random) -> bytearray:
    return content[: draws.randrange(len(content))]


def _lose_a_block(content: bytearray, draws: random.Random) -> bytearray:
    """Zeros where 4 KiB never reached the disk, at a place that held something else."""
    filled = [i for i in range(0, len(content), 4096) if any(content[i : i + 4096])]
    start = draws.choice(filled)
    part = len(content[start : start + 4096])
    content[start : start + part] = bytes(part)
    return content


KINDS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flipped bit": _flip,
    "cut": _cut,
    "lost block": _lose_a_block,
}


def campaign(folder: Path, rounds: int, until: float) -> Damage:
    """Damage latest.pt of a run at half its steps, in one round of four also the one before it, then resume."""
    found, draws = Damage(), random.Random(21)
    train(folder / "straight", lr_decay="none")
    unbroken = results(folder / "straight")
    half = folder / "half"
    half_done: dict[str, Any] = {"steps": 9, "lr_decay": "none", "checkpoints.keep": 3}
    train(half, **half_done)
    for _ in range(rounds):
        if time.monotonic() > until:
            break
        run = folder / "damaged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(half, run)
        both = draws.random() < 0.25
        kind = draws.choice(list(KINDS))
        # Copying made two files of the two names; the one is removed, as if they were still one.
        (run / "checkpoints" / "step-000009.pt").unlink()
        for name in ("latest.pt", "step-000006.pt")[: 1 + both]:
            path = run / "checkpoints" / name
            path.write_bytes(KINDS[kind](bytearray(path.read_bytes()), draws))
        step = 3 if both else 6
        for counts, key in ((found.rounds, kind), (found.used, f"of step {step} instead of 9")):
            counts[key] = counts.get(key, 0) + 1
        found.losses += [f"{kind}, both={both}: {loss}" for loss in _resumed(run, step, unbroken, folder)]
    return found


def _resumed(run: Path, step: int, unbroken: dict[str, object], folder: Path) -> list[str]:
    ended = forked(partial(train, run, lr_decay="none"), folder / "note")
    if ended.code:
        return [f"cannot resume: {ended.error}"]
    log = read_log(run)
    again = f"going on from step-{step:06d}, step {step}: the {9 - step} steps after it are done again"
    losses = [f"not said: {said}" for said in ("latest.pt is damaged", again) if said not in log]
    if not (run / "checkpoints" / "set-aside" / "latest-damaged.pt").exists():
        losses.append("the damaged file was not kept")
    if different := difference(run, unbroken):
        losses.append(different)
    return losses + problems(run, SETTINGS["checkpoints.every"])
