"""The state of a run, to a checkpoint and back."""

from __future__ import annotations

from pathlib import Path

import torch

from fastdat.training import checkpoint
from fastdat.training.state import RunState
from tests.training.checkpoint_states import small_state


def test_the_state_survives_a_checkpoint(tmp_path: Path) -> None:
    best = {"step": 4, "kind": {"name": "fid"}, "rank": -1.0, "score": 1.0}
    state = RunState(done=7, seconds=2.5, attempt=1, best=best, unscored=True)
    state.meter_d.add({"loss_d": torch.tensor(1.0)})
    state.meter_d.add({"loss_d": torch.tensor(4.0)})
    checkpoint.save(tmp_path / "latest.pt", small_state() | state.to_checkpoint())
    drawn = torch.rand(3)
    restored = RunState()
    restored.restore(checkpoint.load(tmp_path / "latest.pt"), torch.device("cpu"))
    assert (restored.done, restored.seconds, restored.attempt) == (7, 2.5, 1)
    assert (restored.best, restored.unscored) == (best, True)
    assert restored.means() == {"loss_d": 2.5}
    assert torch.equal(torch.rand(3), drawn), "torch's global generator is restored too"
    restored.clear_meters()
    assert restored.means() == {}


def test_a_new_run_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    RunState().restore_rng()
    assert torch.equal(before, torch.get_rng_state())
