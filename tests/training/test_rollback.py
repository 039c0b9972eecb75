"""What a run does when it produces NaN or infinity."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.training import NonFiniteError, Trainer
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    change_reals,
    latest,
    read_log,
    read_stats,
    results,
    resumable,
    tiny,
    trainer_of,
)


def breaking(data: ImageSet, outdir: Path, at: list[int], **changes: Any) -> Trainer:
    """A trainer with NaN reals in these D steps; a step is taken off the list when its reals were NaN."""
    trainer = trainer_of(resumable(log_every=1, **{"on_nan": "rollback"} | changes), data, outdir)

    def broken(step: int, reals: Tensor) -> Tensor:
        if step in at:
            at.remove(step)
            return reals * math.nan
        return reals

    change_reals(trainer, broken)
    return trainer


def test_rollback_goes_on_with_other_noise(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(resumable(log_every=1), few_images, tmp_path / "whole").train()
    trainer = breaking(few_images, tmp_path / "run", at=[10])
    trainer.train()
    assert "back to step 4, retry 1 of 3 with other noise" in read_log(tmp_path / "run")
    a, b = results(tmp_path / "whole"), results(tmp_path / "run")
    assert [line["step"] for line in b["stats"]] == list(range(1, 9))
    assert a["stats"][:4] == b["stats"][:4]
    assert a["stats"][4:] != b["stats"][4:], "the same noise would lead to the same NaN"
    assert b["state"]["attempt"] == 1


def test_an_infinite_measurement_is_never_saved(few_images: ImageSet, tmp_path: Path) -> None:
    """A checkpoint keeps its sum, so every run resumed from it would break down at the next line of stats.jsonl."""
    config = resumable(log_every=100, **{"checkpoints.every": 2})
    trainer = trainer_of(config, few_images, tmp_path)
    run = trainer.iteration.run

    def measured(step: int) -> None:
        run(step)
        if step == 4:
            meter = trainer.state.meter_d
            meter.add({name: torch.tensor(math.inf) for name in meter.means()})

    trainer.iteration.run = measured  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert latest(tmp_path)["step"] == 4
    trainer_of(config, few_images, tmp_path).train()


def test_retries_are_bounded(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = breaking(few_images, tmp_path, at=[10] * 9, nan_retries=2)
    with pytest.raises(NonFiniteError, match="No rollback: 2 retries are used up"):
        trainer.train()
    assert latest(tmp_path)["step"] == 4
    assert read_log(tmp_path).count("with other noise") == 2


def test_no_rollback_without_a_checkpoint(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = breaking(few_images, tmp_path, at=[1])
    with pytest.raises(NonFiniteError, match="No rollback: there is no checkpoint yet"):
        trainer.train()


def test_nan_stops_the_run_with_a_report(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    change_reals(trainer, lambda step, reals: reals * (math.nan if step == 9 else 1))
    with pytest.raises(NonFiniteError, match="NaN or infinity between steps 5 and 6") as info:
        trainer.train()
    report = str(info.value)
    assert "loss_d = nan" in report
    assert "of 12 tensors are affected, first netG.0.weight" in report
    assert "Try a smaller lr" in report
    assert "No rollback: there is no checkpoint yet; a smaller checkpoints.every makes one earlier." in report
    assert "on_nan=rollback" not in report, "which could not help"
    log = read_log(tmp_path / "run")
    assert all(line in log for line in report.splitlines())
    stats = read_stats(tmp_path / "run")
    assert [line["step"] for line in stats] == [2, 4], "the finite part stays"


def test_nan_in_the_first_step_is_reported_there(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    change_reals(trainer, lambda step, reals: reals * (math.nan if step == 1 else 1))
    with pytest.raises(NonFiniteError, match="between steps 1 and 2"):
        trainer.train()


def test_a_rollback_is_advised_where_there_is_a_checkpoint(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = breaking(few_images, tmp_path, at=[10], on_nan="stop")
    with pytest.raises(NonFiniteError, match="on_nan=rollback goes back to step 4 by itself"):
        trainer.train()
    trainer_of(resumable(log_every=1, on_nan="rollback"), few_images, tmp_path).train()


def test_a_weight_that_breaks_in_the_last_update_is_found(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(steps=1))
    trainer.netG[0].weight.register_hook(lambda grad: grad * math.inf)  # type: ignore[index, union-attr]
    with pytest.raises(NonFiniteError, match=r"1 of 12 tensors are affected, first netG\.0\.weight"):
        trainer.train()
