"""Runs of a second in processes of their own, and what must hold of their folders whatever happened to them."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastdat.data import ImageSet
from fastdat.training import TrainConfig, checkpoint
from fastdat.util.run_layout import snapshots
from tests.training.runs import assert_same, read_stats, results, resumable, trainer_of

#: With all that a resumed run restores, and a line of stats.jsonl a step, which says how far a killed run came.
SETTINGS: dict[str, Any] = {"steps": 12, "log_every": 1, "sample_every": 7, "checkpoints.every": 3}
PRESETS = ("mlp-dat-gaussians", "sngan-dat-cifar10")


def config(name: str = PRESETS[0]) -> TrainConfig:
    return resumable(name, **SETTINGS, flip="gaussians" not in name)


def images() -> ImageSet:
    """Images of noise."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet("noise", pixels, torch.arange(40) % 10, tuple("abcdefghij"))


def train(outdir: Path, name: str = PRESETS[0], **changes: Any) -> None:
    """Begin or resume a run, and finish it."""
    data = None if "gaussians" in name else images()
    trainer_of(config(name).replace(changes), data, outdir).train()


@dataclass(frozen=True)
class Ended:
    """How a forked process ended.

    Args:
        code: 0, or minus the signal that killed it, or 3 after an exception.
        error: the class and the message of the exception.
    """

    code: int
    error: str = ""


def forked(function: Callable[[], None], note: Path, kill_after: float | None = None) -> Ended:
    """Run ``function`` in a fork of this process; its exception, if any, passes through the file ``note``.

    Args:
        kill_after: seconds until the process gets SIGKILL.
    """
    note.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        os._exit(exit_code(function, note))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), note.read_text() if note.exists() else "")


def exit_code(function: Callable[[], None], note: Path) -> int:
    """0, or 3 after an exception, which is written to ``note``."""
    try:
        function()
    except BaseException as error:
        note.write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        return 3
    finally:
        sys.stdout.flush()
    return 0


def problems(run: Path, every: int = SETTINGS["checkpoints.every"]) -> list[str]:
    """What is wrong with a stopped run's checkpoints: unreadable ones, and steps that must have been saved but are not.

    A line of stats.jsonl is written in a step before its checkpoint, so the line of a later step proves that the
    checkpoint was complete.
    """
    steps, found = {}, []
    for path in (run / "checkpoints").glob("*.pt"):
        try:
            steps[path.name] = checkpoint.load(path)["step"]
        except OSError as error:
            found.append(f"unreadable: {error}")
    for of_step, path in snapshots(run):
        if steps.get(path.name, of_step) != of_step:
            found.append(f"{path.name} is of step {steps[path.name]}")
    recorded = max((int(line["step"]) for line in _whole_lines(run)), default=0)
    saved = (recorded - 1) // every * every if recorded else 0
    if steps.get("latest.pt", 0) < saved:
        found.append(f"lost: step {saved} was saved, latest.pt is of step {steps.get('latest.pt')}")
    if saved >= 2 * every and len(set(steps.values())) < 2:
        found.append(f"step {saved} has no checkpoint before it")
    return found


def _whole_lines(run: Path) -> list[dict[str, float]]:
    """Those of stats.jsonl, without what a kill left of a last one."""
    path = run / "stats.jsonl"
    if not path.exists():
        return []
    whole = path.read_text()
    if not whole.endswith("\n"):
        (run / "stats.jsonl").write_text(whole[: whole.rfind("\n") + 1])
    return read_stats(run)


def difference(run: Path, straight: dict[str, Any]) -> str:
    """How a finished run differs from an unbroken one; empty if it is the same to the last bit."""
    try:
        assert_same(straight, results(run))
    except AssertionError as error:
        return f"another result: {error}"
    return ""
