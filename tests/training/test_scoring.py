"""Scores while training, and the best checkpoint."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from fastdat.data import DataError, ImageSet
from fastdat.data.mixture import MIXTURES
from fastdat.metrics import EvalConfig, ImageEvaluator
from fastdat.metrics.evaluators import ModesEvaluator
from fastdat.training import ConfigError, Trainer, build_trainer, checkpoint, load_data, preset
from fastdat.training.display import Lines
from fastdat.training.noise import EVALUATION, Noise
from fastdat.training.scoring import better, require_evaluator
from tests.training.runs import (
    SCORED,
    EndError,
    assert_same,
    latest,
    read_log,
    read_scores,
    scored,
    train_until,
    trainer_of,
)


def test_scores_while_training(run: Path) -> None:
    found = read_scores(run)
    assert [(r["step"], r["split"], r["weights"]) for r in found] == [
        (2, "train", "G"), (2, "test", "G"), (4, "train", "G"), (4, "test", "G"),
    ]  # fmt: skip
    assert [r["real_count"] for r in found] == [30] * 4
    assert found[1]["data"] != found[0]["data"]
    log = read_log(run)
    assert "step 4  test [means]  kid " in log
    best = checkpoint.load(run / "checkpoints" / "best.pt")
    kids = {r["step"]: r["scores"]["kid"] for r in found if r["split"] == "train"}
    assert best["step"] == min(kids, key=lambda step: kids[step])
    assert best["best"]["score"] == min(kids.values())
    assert list((run / "tensorboard").iterdir())


def test_scoring_shows_how_far_it_is(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    """It may take longer than the steps between two scores."""
    file = io.StringIO()
    display = Lines(file)
    display.every = 0.0
    config = scored(cifar10_root, steps=2, **{"eval.batch_size": 8})
    build_trainer(config, few_images, tmp_path, display=display).train()
    lines = [line for line in file.getvalue().splitlines() if line.startswith("scoring, ")]
    assert [line.partition("%")[0] for line in lines if "fakes" in line] == [
        "scoring, fakes: 8 of 20 (40",
        "scoring, fakes: 16 of 20 (80",
        "scoring, fakes: 20 of 20 (100",
    ]
    assert "scoring, reals (train): 8 of 30 (26%)" in lines
    assert " left" in lines[1], "the time that it still takes"
    assert "scoring, fakes" not in read_log(tmp_path)


@pytest.mark.parametrize("moment", ["before", "between"])
def test_an_end_while_scoring_loses_nothing(
    moment: str, few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """Before any score of step 2 is written, or between those of train and test."""
    config = scored(cifar10_root)
    trainer_of(config, few_images, tmp_path / "straight").train()
    trainer = trainer_of(config, few_images, tmp_path / "ended")
    append, written = trainer.folder.append_metrics, []

    def ending(record: dict[str, Any]) -> None:
        if moment == "before" or written:
            raise EndError
        written.append(record)
        append(record)

    trainer.folder.append_metrics = ending  # type: ignore[method-assign, assignment]
    with pytest.raises(EndError):
        trainer.train()
    assert latest(tmp_path / "ended")["step"] == 2
    again = trainer_of(config, few_images, tmp_path / "ended")
    assert again.done == 2
    again.train()
    assert read_scores(tmp_path / "ended") == read_scores(tmp_path / "straight")
    a, b = (latest(tmp_path / name) for name in ("straight", "ended"))
    assert all(torch.equal(a["netG"][key], b["netG"][key]) for key in a["netG"])
    assert a["best"] == b["best"]


def test_a_run_that_ended_before_its_last_scores_makes_them(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    def ending(record: Any) -> None:
        raise EndError

    config = scored(cifar10_root, **{"eval.every": 100})
    trainer = trainer_of(config, few_images, tmp_path / "run")
    trainer.folder.append_metrics = ending  # type: ignore[method-assign]
    with pytest.raises(EndError):
        trainer.train()
    assert latest(tmp_path / "run")["step"] == 4
    trainer_of(config, few_images, tmp_path / "run").train()
    assert [r["step"] for r in read_scores(tmp_path / "run")] == [4, 4]


def test_a_missing_split_is_an_error_before_training(cifar10: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        Image.fromarray(cifar10.images[i].permute(1, 2, 0).numpy()).save(tmp_path / "pictures" / f"{i}.png")
    changes = {"resolution": 32, "data": str(tmp_path / "pictures"), "eval.splits": ["train", "test"]}
    config = preset("sngan-dat-folder").replace(SCORED | changes)
    assert preset("sngan-dat-folder").eval.splits == ("train",)
    trainer = trainer_of(config, load_data(config), tmp_path / "run")
    message = r"(?s)no test split.*the test split; with eval.splits=\[\"train\"\] it is not needed"
    with pytest.raises(DataError, match=message):
        trainer.train()
    assert trainer.done == 0


def test_scores_of_another_kind_are_not_ranked(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """A run is resumed with other counts: the first score of the new kind is the best."""
    trainer_of(scored(cifar10_root, lr_decay="none"), few_images, tmp_path / "run").train()
    path = tmp_path / "run" / "checkpoints" / "latest.pt"
    state = checkpoint.load(path)
    state["best"] |= {"rank": 1e9}  # beyond what any KID can reach
    del state["format"]
    checkpoint.save(path, state)
    trainer_of(scored(cifar10_root, steps=6, lr_decay="none"), few_images, tmp_path / "run").train()
    assert checkpoint.load(path)["best"]["rank"] == 1e9
    config = scored(cifar10_root, steps=8, lr_decay="none", **{"eval.fakes": 25})
    trainer_of(config, few_images, tmp_path / "run").train()
    best = checkpoint.load(path)["best"]
    assert (best["step"], best["kind"]["fake_count"]) == (8, 25)


def test_scoring_does_not_change_the_run(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    states = []
    for every in (1, None):
        trainer = trainer_of(scored(cifar10_root, **{"eval.every": every}), few_images, tmp_path / str(every))
        before = torch.get_rng_state()
        trainer.train()
        assert torch.equal(before, torch.get_rng_state())
        assert all(module.training for module in trainer.netG.modules())
        states.append(trainer.netG.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_resumed_run_has_the_same_scores(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    config = scored(cifar10_root, steps=6, ema=0.5, **{"checkpoints.every": 3})
    trainer_of(config, few_images, tmp_path / "straight").train()
    first = trainer_of(config, few_images, tmp_path / "stopped")
    train_until(first, 5)
    assert read_scores(tmp_path / "stopped")[-1]["step"] == 4
    trainer_of(config, few_images, tmp_path / "stopped").train()
    straight, stopped = read_scores(tmp_path / "straight"), read_scores(tmp_path / "stopped")
    assert [r["weights"] for r in straight] == ["ema"] * 6
    assert straight == stopped


def test_what_scores_need_is_checked_before_training(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    def make(outdir: str, name: str = "sngan-dat-cifar10", **changes: Any) -> Trainer:
        return trainer_of(scored(cifar10_root, name, **changes), few_images, tmp_path / outdir)

    trainer = make("run", **{"eval.extractor": "vgg"})
    with pytest.raises(ConfigError, match="unknown extractor 'vgg'"):
        trainer.train()
    assert trainer.done == 0
    assert not (tmp_path / "run" / "stats.jsonl").exists()
    with pytest.raises(
        ConfigError, match=r"eval.metrics of cifar10 may be fid, kid, is, precision-recall; got \['modes'\]"
    ):
        make("run2", **{"eval.metrics": ["modes"]})
    with pytest.raises(ConfigError, match=r"eval.metrics of gaussians may be modes; got \['kid'\]"):
        make("run3", "mlp-gaussians")


def test_modes_of_the_mixture(tmp_path: Path) -> None:
    settings = {"eval.metrics": ["modes"], "eval.extractor": "means"}
    trainer_of(scored(tmp_path, "mlp-dat-gaussians", **settings), None, tmp_path / "run").train()
    found = read_scores(tmp_path / "run")
    assert [(r["step"], r["split"], r["extractor"]) for r in found] == [
        (2, "train", "none"),
        (4, "train", "none"),
    ]
    assert set(found[0]["scores"]) == {"modes", "high_quality", "kl"}


def test_what_is_scored_are_samples_of_the_average(tmp_path: Path) -> None:
    found: list[Tensor] = []

    class Keeping:
        def prepare(self) -> None:
            return None

        def __call__(self, fakes: Any, progress: Any = None) -> list[dict[str, Any]]:
            found.append(torch.cat(list(fakes(7))))
            return [{"split": "train", "scores": {"modes": 3.0}, "extractor": "none"}]

    changes = {
        "ema": 0.75,
        "lr": 0.1,
        "steps": 2,
        "logger": "none",
        "eval.metrics": ["modes"],
        "eval.seed": 6,
    }
    config = scored(tmp_path, "mlp-dat-gaussians", **changes)
    trainer = trainer_of(config, None, tmp_path / "run", evaluator=Keeping())
    trainer.train()
    assert trainer.ema is not None
    z = Noise(config.nz, seed=6, device=torch.device("cpu")).draw(EVALUATION, 0, 7)
    with torch.no_grad():
        of_average, of_g = trainer.ema.net.eval()(z), trainer.netG.eval()(z)
    torch.testing.assert_close(found, [of_average])
    assert (of_average - of_g).abs().max() > 0.01


def test_the_best_is_replaced_by_a_better_score_only() -> None:
    settings = EvalConfig(metrics=("fid",))

    def record(step: int, fid: float, fakes: int = 10) -> dict[str, Any]:
        return {"step": step, "scores": {"fid": fid}, "split": "train", "fake_count": fakes}

    best = better(None, record(1, 30.0), settings)
    assert best is not None
    assert (best["step"], best["score"], best["rank"], best["kind"]["name"]) == (1, 30.0, -30.0, "fid")
    assert better(best, record(2, 30.0), settings) is None
    assert better(best, record(2, 31.0), settings) is None
    other_kind = better(best, record(2, 31.0, fakes=20), settings)
    assert other_kind is not None
    assert other_kind["step"] == 2
    lower = better(best, record(3, 29.0), settings)
    assert lower is not None
    assert_same(lower, {"step": 3, "kind": best["kind"], "rank": -29.0, "score": 29.0})


def test_an_evaluator_must_return_scores_unless_it_is_stopped(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """Without this the loop would score again and again."""

    class Silent:
        def prepare(self) -> None:
            return None

        def __call__(self, fakes: Any, progress: Any) -> None:
            return None

    trainer = trainer_of(scored(cifar10_root), few_images, tmp_path / "run", evaluator=Silent())
    with pytest.raises(RuntimeError, match="returned no scores, but it was not asked to stop"):
        trainer.train()
    assert latest(tmp_path / "run")["unscored"] is True


def test_an_evaluator_with_other_settings_is_refused(few_images: ImageSet, tmp_path: Path) -> None:
    """At the start: the first scores may be hours away."""
    images = {"train": few_images, "test": few_images}
    own = EvalConfig(metrics=("kid",), extractor="means", fakes=20, weights="a.pt", batch_size=3)
    evaluator = ImageEvaluator(own, images, torch.device("cpu"))
    message = r"eval of the run: metrics \(\('kid',\) there, \('fid', .* here\), extractor .*, fakes"
    with pytest.raises(ConfigError, match=message):
        require_evaluator(EvalConfig(every=5, weights="a.pt"), evaluator)
    points = ModesEvaluator(EvalConfig(metrics=("modes",), fakes=10), MIXTURES["gaussians"])
    with pytest.raises(
        ConfigError, match=r"run: fakes \(10 there, 20 here\)\. Give both the same EvalConfig"
    ):
        require_evaluator(EvalConfig(every=5, metrics=("modes",), fakes=20), points)
    # No score depends on these; and a run has made the path absolute.
    same = dataclasses.replace(own, every=2, batch_size=8, weights=os.path.abspath("a.pt"))
    require_evaluator(same, evaluator)
    require_evaluator(EvalConfig(), evaluator)
