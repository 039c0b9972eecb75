"""Kinds of scores: only scores that were measured in the same way share a kind."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdat.report.score_table import score_series
from tests.report.runs import read_run, scored


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1}, True),
        ({"versions": {}}, True),
        ({"is_splits": 5}, True),  # FID does not depend on it
        ({"kid_subset_size": 5}, True),
        ({"fake_count": 10_000}, False),
        ({"real_count": 10_000}, False),
        ({"split": "test"}, False),
        ({"extractor": "mine"}, False),
        ({"extractor_sha256": "1" * 64}, False),
        ({"resize": "bilinear 96"}, False),
        ({"resolution": 48}, False),
        ({"data_sha256": "2" * 64}, False),
        ({"data": "cifar10 test"}, False),
        ({"weights": "ema"}, False),
    ],
)
def test_changes_that_make_another_kind(tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    run = read_run(tmp_path, scored(1, {"fid": 30.0}), scored(2, {"fid": 20.0}, **change))
    assert [len(series.steps) for series in score_series(run).values()] == ([2] if same else [1, 1])


def test_inception_score_has_no_split(tmp_path: Path) -> None:
    run = read_run(tmp_path, scored(1, {"is": 7.0}), scored(2, {"is": 8.0}, split="test", real_count=10_000))
    ((kind, series),) = score_series(run).items()
    assert (kind.split, kind.reals, series.values) == (None, None, [7.0, 8.0])


def test_of_a_step_scored_twice_the_later_score_counts(tmp_path: Path) -> None:
    run = read_run(tmp_path, scored(5, {"fid": 30.0}), scored(5, {"fid": 31.0}))
    (series,) = score_series(run).values()
    assert (series.steps, series.values) == ([5], [31.0])


def test_best_value_and_text(tmp_path: Path) -> None:
    run = read_run(
        tmp_path,
        scored(1, {"kid": 0.02, "kid_std": 0.001, "is": 7.0, "odd": 1.0}),
        scored(2, {"kid": 0.0133, "kid_std": None, "is": 8.0, "odd": 2.0}),
        scored(3, {"kid": 0.0133, "is": 7.5, "odd": None}),
    )
    series = {kind.name: (kind, found) for kind, found in score_series(run).items()}
    kid, of_kid = series["kid"]
    assert [of_kid.text(kid, i) for i in range(3)] == ["0.0200 ± 0.0002", "0.0133", "0.0133"]
    assert of_kid.best(kid) == 1  # the earlier of two equal scores
    inception, of_inception = series["is"]
    assert of_inception.best(inception) == 1
    odd, of_odd = series["odd"]
    assert (of_odd.steps, of_odd.best(odd)) == ([1, 2], None)


@pytest.mark.parametrize("subsets", [2, 8])
def test_standard_error_of_kid(tmp_path: Path, subsets: int) -> None:
    """Means over subsets that share images: their spread over fresh images is what the page shows after ±.

    The score of a subset is here the mean of its numbers, as KID is to the first order.
    """
    rng, images, size = np.random.default_rng(0), 400, 100
    means, errors = [], []
    for _ in range(1500):
        drawn = rng.normal(size=images)
        parts = [rng.choice(drawn, size, replace=False).mean() for _ in range(subsets)]
        means.append(np.mean(parts))
        counts = {"fake_count": images, "real_count": 9000, "kid_subsets": subsets, "kid_subset_size": size}
        errors.append((float(np.std(parts)), counts))  # divided by their number, as torch-fidelity does it
    (run,) = [
        read_run(
            tmp_path,
            *(scored(i, {"kid": 1.0, "kid_std": std}, **counts) for i, (std, counts) in enumerate(errors)),
        )
    ]
    (series,) = score_series(run).values()
    squares = [error**2 for error in series.errors if error is not None]
    assert len(squares) == 1500
    assert math.sqrt(np.mean(squares)) == pytest.approx(np.std(means), rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"fake_count": 1000},  # every subset holds all fakes: they say nothing about other fakes
        {"fake_count": None},
        {"kid_subsets": None},
        {"kid_subsets": 1},  # one subset has no spread
        {"kid_subset_size": "many"},
        {"kid_subset_size": 0},
    ],
)
def test_error_of_kid_is_unknown(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = read_run(tmp_path, scored(1, {"kid": 0.5, "kid_std": 0.1}, **changes))
    ((kind, series),) = score_series(run).items()
    assert (series.errors, series.text(kind, 0)) == ([None], "0.50")


def test_deviation_of_the_inception_score_is_the_published_one(tmp_path: Path) -> None:
    ((kind, series),) = score_series(read_run(tmp_path, scored(1, {"is": 7.9, "is_std": 0.08}))).items()
    assert series.text(kind, 0) == "7.90 ± 0.08"


@pytest.mark.parametrize(
    ("of_one", "of_other", "same"),
    [
        ({}, {}, True),
        ({}, {"dataset": "cifar100"}, False),
        ({"dataset": "folder", "data": "cats"}, {"dataset": "folder", "data": "dogs"}, False),
        ({"dataset": None}, {"dataset": None}, True),
    ],
    ids=str,
)
def test_inception_scores_of_other_images_are_another_kind(
    of_one: dict[str, Any], of_other: dict[str, Any], same: bool, tmp_path: Path
) -> None:
    """G was trained on them, although IS is made without reals."""

    def record(split: str) -> dict[str, Any]:
        return scored(1, {"is": 7.0}, split=split, data=f"cifar10 {split}")

    kinds = [
        set(score_series(read_run(tmp_path / split, record(split), config=config)))
        for split, config in (("train", of_one), ("test", of_other))
    ]
    assert (kinds[0] == kinds[1]) is same


def test_inception_scores_of_own_nets_are_told_apart_by_their_reals(tmp_path: Path) -> None:
    own = {"model": None, "dataset": None}
    kinds = [
        set(score_series(read_run(tmp_path / name, scored(1, {"is": 7.0}, data=f"{name} train"), config=own)))
        for name in ("faces", "cats")
    ]
    assert kinds[0] != kinds[1]
