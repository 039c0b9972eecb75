"""Stop requests and interrupts: after a step, and while scoring."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.metrics import Evaluator, Extractor, extractors
from fastdat.metrics.evaluators import Fakes, Progress, Record, keep_going
from fastdat.training import build_evaluator
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    Means,
    assert_same,
    change_reals,
    end_at,
    read_log,
    read_scores,
    read_stats,
    results,
    resumable,
    scored,
    tiny,
    trainer_of,
)


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_request_ends_the_run_after_a_step(few_images: ImageSet, tmp_path: Path) -> None:
    """With a checkpoint of that step."""
    config = resumable(checkpoint_every=1000)
    trainer_of(config, few_images, tmp_path / "straight").train()
    trainer = trainer_of(config, few_images, tmp_path / "stopped")

    def asked(step: int, reals: Tensor) -> Tensor:
        if step == 6:
            ask_to_stop()
        return reals

    change_reals(trainer, asked)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "stopped by SIGTERM after 4 steps" in read_log(tmp_path / "stopped")
    trainer_of(config, few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


def test_an_interrupted_run_leaves_whole_files(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    end_at(trainer, 9, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4]
    assert "interrupted in the middle of a step, after 4 steps" in read_log(tmp_path / "run")


class AsksToStop:
    """An evaluator that gets a stop request with each batch of fakes."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.drawn: list[Tensor] = []

    def prepare(self) -> None:
        self.evaluator.prepare()

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        def asked(count: int) -> Iterator[Tensor]:
            for batch in fakes(count):
                self.drawn.append(batch)
                ask_to_stop()
                yield batch

        return self.evaluator(asked, progress)


def test_a_stop_request_ends_scoring(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    config = scored(cifar10_root, **{"eval.batch_size": 4})
    evaluator = AsksToStop(build_evaluator(config, torch.device("cpu"), few_images))
    trainer = trainer_of(config, few_images, tmp_path / "run", evaluator)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert len(evaluator.drawn) == 1
    log = read_log(tmp_path / "run")
    assert "stopped by SIGTERM while scoring after 2 steps; run the same command again to resume" in log
    trainer_of(scored(cifar10_root), few_images, tmp_path / "run").train()
    assert [(r["step"], r["split"]) for r in read_scores(tmp_path / "run")] == [
        (2, "train"), (2, "test"), (4, "train"), (4, "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("moment", ["reals", "fakes"])
def test_a_stop_request_ends_the_extraction_of_features(
    moment: str, few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """Those of reals come first. Once complete they are kept, and the next process does not compute them again."""
    seen: list[int] = []

    class Stopping(Means):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            if len(seen) == {"reals": 1, "fakes": 3}[moment]:
                ask_to_stop()
            return super().forward(images)

    extractors.FACTORIES["means"] = lambda weights: Extractor("means", Stopping(), "none")
    config = scored(cifar10_root, **{"steps": 2, "eval.batch_size": 30, "eval.splits": ["train", "test"]})
    trainer = trainer_of(config, few_images, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert seen == {"reals": [30], "fakes": [30, 30, 20]}[moment]
    log = read_log(tmp_path / "run")
    assert "scoring with 20 samples ..." in log
    assert "stopped by SIGTERM while scoring after 2 steps" in log
    again = trainer_of(config, few_images, tmp_path / "run")
    again.train()
    assert [r["by"] for r in read_scores(tmp_path / "run")] == ["train", "train"]
    assert seen[-1] == 20
    assert len(seen) == {"reals": 4, "fakes": 4}[moment]


def test_a_stop_request_ends_the_scoring_of_points(tmp_path: Path) -> None:
    config = tiny("mlp-dat-gaussians", steps=2, **{"eval.every": 1, "eval.metrics": ["modes"]})
    evaluator = AsksToStop(build_evaluator(config, torch.device("cpu")))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(config, None, tmp_path / "run", evaluator).train()
    assert len(evaluator.drawn) == 1
    trainer_of(config, None, tmp_path / "run").train()
    assert [r["step"] for r in read_scores(tmp_path / "run")] == [1, 2]
