"""How far a run is: what a checkpoint keeps beside nets, optimizers and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from fastdat.training import checkpoint
from fastdat.training.meter import Meter
from fastdat.training.undisturbed import training_rng_state
from fastdat.util.ranks import Ranks


@dataclass
class RunState:
    """The part of a run that is resumed.

    Args:
        done: G steps done.
        seconds: of training up to the last checkpoint, in all processes of the run.
        attempt: how many rollbacks there were; part of the noise's seed.
        best: step, kind, rank and score of best.pt; None before the first scores.
        unscored: the scores of step ``done`` are due and not yet made.
        meter_d, meter_g: what D steps and G steps measured since the last line of stats.jsonl.
        rng: torch's global generators at the last checkpoint; None in a new run.
    """

    done: int = 0
    seconds: float = 0.0
    attempt: int = 0
    best: dict[str, Any] | None = None
    unscored: bool = False
    meter_d: Meter = field(default_factory=Meter)
    meter_g: Meter = field(default_factory=Meter)
    rng: checkpoint.State | None = None

    def to_checkpoint(self) -> checkpoint.State:
        """The entries of a checkpoint; the global generators as training sees them now."""
        return {
            "step": self.done,
            "rng": training_rng_state(),
            "seconds": self.seconds,
            "attempt": self.attempt,
            "meters": {"d": self.meter_d.state(), "g": self.meter_g.state()},
            "best": self.best,
            "unscored": self.unscored,
        }

    def restore(self, saved: checkpoint.State, device: torch.device) -> None:
        """Take over the entries of a checkpoint, in place; sets torch's global generators too."""
        self.done, self.seconds = saved["step"], saved["seconds"]
        self.attempt, self.best, self.unscored = saved["attempt"], saved["best"], saved["unscored"]
        self.meter_d.load(saved["meters"]["d"], device)
        self.meter_g.load(saved["meters"]["g"], device)
        self.rng = saved["rng"]
        self.restore_rng()

    def restore_rng(self) -> None:
        """Set torch's global generators to the last checkpoint's; does nothing in a new run."""
        if self.rng is not None:
            checkpoint.set_rng_state(self.rng)

    def means(self) -> dict[str, float]:
        """Means since the last line of stats.jsonl; waits for the device."""
        return self.meter_d.means() | self.meter_g.means()

    def average_meters(self, ranks: Ranks) -> None:
        """Let each rank have measured what all have measured, in the mean."""
        for meter in (self.meter_d, self.meter_g):
            meter.average(ranks)

    def clear_meters(self) -> None:
        self.meter_d.clear()
        self.meter_g.clear()
