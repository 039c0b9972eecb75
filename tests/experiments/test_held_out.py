"""Scores against the test images: of the last and the best step, from few fakes, added to the run once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastdat.data import ImageSet
from fastdat.experiments.images import image_study
from fastdat.experiments.images.held_out import with_test_scores
from fastdat.experiments.images.image_study import scores_of, train_all
from fastdat.experiments.outcome import Runs
from fastdat.metrics import extractors, register_extractor
from fastdat.training import build
from fastdat.training.run_folder import append_metrics
from tests.experiments.image_runs import OPTIONS, images, tiny_arm
from tests.training.runs import means


@pytest.fixture(autouse=True)
def synthetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cheap extractor, 40 training images and 25 others for testing."""
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("means", means)
    monkeypatch.setenv("FASTDAT_CACHE", str(tmp_path / "cache"))

    def load(config: Any, split: str = "train", progress: Any = None) -> ImageSet:
        return images() if split == "train" else images(25, seed=1)

    monkeypatch.setattr(image_study, "load_data", load)
    monkeypatch.setattr(build, "load_data", load)


def test_last_and_best_step_are_scored_once(tmp_path: Path) -> None:
    runs = train_all([tiny_arm("a", lr=0.05)], 1, OPTIONS, tmp_path)["a"]  # at this rate step 2 is the best
    lines = [json.loads(line) for line in (runs[0].folder / "metrics.jsonl").read_text().splitlines()]
    assert image_study.best_step(runs[0]) == 2
    (scored,) = with_test_scores(runs, OPTIONS, fakes=12)
    made = [line for line in scored.scores if line["split"] == "test"]
    assert {line["step"] for line in made} == {4, 2}
    for line in made:
        assert (line["fake_count"], line["real_count"], line["by"]) == (12, 25, "eval")
        assert {"fid", "kid"} <= set(line["scores"])
    assert [line for line in scored.scores if line["split"] == "train"] == lines
    by_step = {line["step"]: line["scores"]["fid"] for line in made}
    assert by_step[2] < by_step[4]
    assert scores_of([scored], "fid", "test", "last") == Runs((by_step[4],))
    assert scores_of([scored], "fid", "test", "best") == Runs((by_step[2],))
    again = with_test_scores([scored], OPTIONS, fakes=12)
    assert again == (scored,)


def test_scores_of_a_user_are_no_reason_not_to_make_them(tmp_path: Path) -> None:
    """A ``fastdat eval`` of as many fakes, but by another extractor or on fewer reals."""
    (run,) = train_all([tiny_arm("a")], 1, OPTIONS, tmp_path)["a"]
    foreign = {
        "step": 4,
        "split": "test",
        "by": "eval",
        "weights": "G",
        "extractor": "means",
        "fake_count": 12,
    }
    append_metrics(run.folder, foreign | {"real_count": 9, "scores": {"fid": 777.0, "kid": 777.0}})
    run = image_study.read("a", run.folder, run.config)
    (scored,) = with_test_scores([run], OPTIONS, fakes=12)
    found = scores_of([scored], "fid", "test")
    assert isinstance(found, Runs)
    assert found.mean < 777


def test_a_diverged_run_without_scores_is_left_alone(tmp_path: Path) -> None:
    runs = train_all([tiny_arm("wild", lr=1e30)], 1, OPTIONS, tmp_path)["wild"]
    assert [line for run in with_test_scores(runs, OPTIONS, fakes=12) for line in run.scores] == []
