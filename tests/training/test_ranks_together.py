"""What happens to one of several ranks happens to all: NaN, a request to stop, an error, a checkpoint, a resume."""

from __future__ import annotations

import math
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.training import ConfigError, TrainConfig, Trainer, build_trainer
from fastdat.training.display import Nothing
from fastdat.training.stop import StoppedError
from fastdat.util.errors import NonFiniteError, RunFolderError
from fastdat.util.ranks import Ranks
from tests.ranks import run
from tests.training.runs import change_reals, latest, read_log, read_stats, tiny, train_until, without_times
from tests.training.test_ranks import assert_close, trainer_in_double

FEW: dict[str, Any] = {"steps": 6, "log_every": 1, "checkpoints.every": 2, "sample_every": 100}


def points(outdir: Path, **changes: Any) -> Trainer:
    return trainer_in_double("mlp-dat-gaussians", FEW | changes, outdir)


def _nan(folder: Path, rank: int, ranks: int) -> None:
    def broken(step: int, reals: Tensor) -> Tensor:
        return reals * (math.nan if rank == 1 and step == 7 else 1)  # in the fourth iteration

    trainer = points(folder / "stop")
    change_reals(trainer, broken)
    with pytest.raises(NonFiniteError, match="between steps 4 and 4"):
        trainer.train()
    assert latest(folder / "stop")["step"] == 2

    trainer = points(folder / "rollback", on_nan="rollback")
    left = [7]

    def broken_once(step: int, reals: Tensor) -> Tensor:
        if rank == 1 and step in left:
            left.remove(step)
            return reals * math.nan
        return reals

    change_reals(trainer, broken_once)
    trainer.train()
    assert (trainer.done, trainer.state.attempt) == (6, 1)


def test_nan_on_one_rank(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_nan, tmp_path))
    assert "back to step 2, retry 1 of 3" in read_log(tmp_path / "rollback")
    assert [line["step"] for line in read_stats(tmp_path / "rollback")] == [1, 2, 3, 4, 5, 6]


def _stop(folder: Path, rank: int, ranks: int) -> None:
    trainer = points(folder)

    def asked(step: int, reals: Tensor) -> Tensor:
        if rank == 1 and step == 5:  # in the third iteration
            trainer._stop.requested = signal.SIGTERM
        return reals

    change_reals(trainer, asked)
    with pytest.raises(StoppedError):
        trainer.train()
    assert trainer.done == 3
    assert latest(folder)["step"] == 3


@pytest.mark.slow
def test_a_request_to_one_rank_stops_all(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_stop, tmp_path / "run"))
    assert "stopped by SIGTERM after 3 steps" in read_log(tmp_path / "run")


def _late_stop(folder: Path, rank: int, ranks: int) -> None:
    """The signal comes to rank 0 right after the ranks have agreed that nobody was asked."""
    trainer = points(folder, log_every=100)  # a line of the log has an agreement of its own
    of = trainer.ranks

    class Interrupted(Ranks):
        def any(self, here: bool) -> bool:
            agreed = of.any(here)
            if rank == 0 and trainer.done == 2 and not here:
                trainer._stop.requested = signal.SIGINT
            return agreed

    trainer.ranks = Interrupted(rank, ranks)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.done == 3
    assert latest(folder)["step"] == 3


@pytest.mark.slow
def test_a_request_that_comes_too_late_for_one_step_stops_all_after_the_next(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_late_stop, tmp_path / "run"))
    assert "stopped by SIGINT after 3 steps" in read_log(tmp_path / "run")


def _callback(folder: Path, rank: int, ranks: int) -> None:
    seen = []

    def measure(trainer: Trainer) -> dict[str, float]:
        seen.append(trainer.done)
        assert not Ranks.now(), "what a callback computes, it computes alone"
        with pytest.raises(ConfigError, match="a callback runs on rank 0 alone"):
            trainer.save()
        if trainer.done == 3:
            raise KeyError("mine")
        return {"mine": trainer.samples(2).abs().mean().item()}

    trainer = points(folder)
    trainer._callbacks._functions = (measure,)
    kind, text = (KeyError, "mine") if rank == 0 else (RuntimeError, "a callback failed on rank 0")
    with pytest.raises(kind, match=text):
        trainer.train()
    assert seen == ([1, 2, 3] if rank == 0 else [])
    assert latest(folder)["step"] == 3


@pytest.mark.slow
def test_a_callback_that_fails_on_rank_0(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_callback, tmp_path / "run"))
    assert "mine" in read_stats(tmp_path / "run")[0]


def _drift(folder: Path, rank: int, ranks: int) -> None:
    trainer = points(folder)
    first = next(trainer.netD.parameters())

    def change(step: int, reals: Tensor) -> Tensor:
        if step == 2 and rank == 1:
            with torch.no_grad():
                first[0, 0] += 1e-3
        return reals

    change_reals(trainer, change)
    with pytest.raises(ConfigError, match="after step 2 the weights of rank 1 are no longer those of rank 0"):
        trainer.train()
    assert not (folder / "checkpoints" / "latest.pt").exists()


@pytest.mark.slow
def test_weights_that_differ_are_not_saved(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_drift, tmp_path / "run"))


def _until(folder: Path, d_step: int, rank: int, ranks: int) -> None:
    """A run of 6 steps, or its part until D step ``d_step`` begins: the last checkpoint is then of an even step."""
    trainer = points(folder, log_every=3)
    if d_step < 12:
        train_until(trainer, d_step)
    else:
        trainer.train()


@pytest.mark.slow
def test_other_numbers_of_ranks_resume_a_run(tmp_path: Path) -> None:
    """1, then 3, then 2 ranks equal one; what steps measured between two lines is not lost, either."""
    _until(tmp_path / "one", 12, 0, 1)
    _until(tmp_path / "many", 5, 0, 1)
    run(3, tmp_path, partial(_until, tmp_path / "many", 9))
    run(2, tmp_path, partial(_until, tmp_path / "many", 12))
    states = [latest(tmp_path / name) for name in ("one", "many")]
    for key in ("step", "netG", "netD", "ema", "optG", "optD"):
        assert_close(*(state[key] for state in states), key)
    lines = [without_times(read_stats(tmp_path / name)) for name in ("one", "many")]
    assert [line["step"] for line in lines[1]] == [3, 6]
    for one, many in zip(*lines, strict=True):
        for key in ("loss_d", "loss_g", "logits_fake", "grad_norm_real"):
            assert many[key] == pytest.approx(one[key], rel=2e-5), key


def _images(config: TrainConfig, folder: Path, rank: int, ranks: int) -> None:
    torch.manual_seed(rank)  # nets are made from config.seed, whatever torch's generator is
    noise = torch.randint(
        0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    data = ImageSet("noise", noise, torch.arange(30) % 10, tuple("0123456789"))
    build_trainer(config, data, folder, display=Nothing()).train()


@pytest.mark.slow
def test_an_image_set_and_its_labels(tmp_path: Path) -> None:
    """Every rank gathers its rows; in single precision, so that two runs part company slowly."""
    config = tiny("csngan-dat-cifar10", steps=2, log_every=1, flip=True, batch_size=6)
    _images(config, tmp_path / "one", 0, 1)
    run(2, tmp_path, partial(_images, config, tmp_path / "two"))
    first, last = (read_stats(tmp_path / name)[0] for name in ("one", "two"))
    for key in ("loss_d", "loss_g", "logits_real", "logits_fake", "grad_norm_real"):
        assert last[key] == pytest.approx(first[key], rel=1e-4, abs=1e-6), key
    assert "2 processes, 3 samples of each batch in each" in read_log(tmp_path / "two")
    grids = [sorted(path.name for path in (tmp_path / name / "samples").iterdir()) for name in ("one", "two")]
    assert grids[0] == grids[1]


def _refused(folder: Path, rank: int, ranks: int) -> None:
    with pytest.raises(
        ConfigError,
        match=r"batch_size=7 is the batch of all 2 .*multiple of 2.*number of processes: 1",
    ):
        points(folder / "uneven", batch_size=7)
    with pytest.raises(ConfigError, match="fakes_at_once=true is for one process, and there are 2"):
        points(folder / "at once", fakes_at_once=True)
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "file").touch()
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        points(folder / "other")
    assert Ranks.now().all_of(rank) == [0, 1], "the ranks go on together"


def test_refusals_reach_all_ranks(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_refused, tmp_path))
