"""Scores while several ranks train: one set of records, by rank 0, from the samples of all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.metrics import Extractor, extractors
from fastdat.training import Trainer, build_evaluator, checkpoint
from fastdat.training.noise import Noise
from fastdat.training.scoring import score
from tests.ranks import run
from tests.training.run_fixtures import cheap_extractor
from tests.training.runs import Means, latest, means, read_log, read_scores, scored, trainer_of
from tests.training.test_stop import ask_to_stop

__all__ = ["cheap_extractor"]

#: 20 fakes in three batches, so that rank 0 makes one more than rank 1.
SETTINGS: dict[str, Any] = {"eval.splits": ["train"], "eval.batch_size": 8, "lr": 1e-3, "ema": 0.5}


def images() -> ImageSet:
    """Images of noise around a grey level of their own."""
    generator = torch.Generator().manual_seed(5)
    grey = torch.randint(40, 216, (60, 3, 1, 1), generator=generator)
    noise = torch.randint(-40, 41, (60, 3, 32, 32), generator=generator)
    return ImageSet("noise", (grey + noise).to(torch.uint8), torch.arange(60) % 10, tuple("abcdefghij"))


def trainer(outdir: Path, **changes: Any) -> Trainer:
    return trainer_of(scored(outdir.parent, **SETTINGS | changes), images(), outdir)


def _train(folder: Path, rank: int, size: int) -> None:
    extractors.FACTORIES["means"] = means
    shared = trainer(folder / "many")
    shared.train()
    assert not shared.state.unscored
    best = checkpoint.load(folder / "many" / "checkpoints" / "best.pt")
    assert shared.state.best == best["best"], "on both ranks"
    _stop_on_rank_1(folder, rank, size)


def _stop_on_rank_1(folder: Path, rank: int, size: int) -> None:
    seen: list[int] = []

    class Stopping(Means):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            if rank == 1:
                ask_to_stop()
            return super().forward(images)

    extractors.FACTORIES["means"] = lambda weights: Extractor("means", Stopping(), "none")
    with pytest.raises(KeyboardInterrupt):
        trainer(folder / "stopped").train()
    # Of fakes, for the cache has the features of the reals, whose first four rank 0 looks at. It learns of the request
    # with its second batch.
    assert seen == ([8] if rank else [4, 8, 4]), (rank, seen)


def scores_here(outdir: Path) -> dict[str, Any]:
    """The record of a finished run's weights, made by this process alone."""
    of = trainer(outdir)
    config = of.config
    draws = Noise(config.nz, seed=config.eval.seed, device=torch.device("cpu"))
    about = {"step": of.done, "weights": "ema", "by": "train"}
    evaluator = build_evaluator(config, torch.device("cpu"), images())
    (record,) = score(evaluator, of._networks.sampled, config.eval, draws, about) or []
    return {key: value for key, value in record.items() if key != "seconds"}


@pytest.mark.slow
def test_two_ranks_score_as_one(tmp_path: Path) -> None:
    run(2, tmp_path, partial(_train, tmp_path))
    found = read_scores(tmp_path / "many")
    assert [(r["step"], r["fake_count"], r["real_count"]) for r in found] == [(2, 20, 30), (4, 20, 30)]
    assert found[0]["scores"] != found[1]["scores"]
    assert found[1] == scores_here(tmp_path / "many")
    # The run that rank 1 ended is complete in its folder, and one process goes on with it.
    assert latest(tmp_path / "stopped")["unscored"] is True
    assert "stopped by SIGTERM while scoring after 2 steps" in read_log(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "metrics.jsonl").exists()
    trainer(tmp_path / "stopped").train()
    assert [record["step"] for record in read_scores(tmp_path / "stopped")] == [2, 4]
