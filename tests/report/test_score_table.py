"""Kinds of scores: only scores that were measured in the same way share a kind, and only Inception's plain names."""

from pathlib import Path
from typing import Any

import pytest

from fastdat.report.runs import RunRecord
from fastdat.report.score_table import Kind, score_series, sorted_kinds
from tests.report.runs import read_run, scored


def kinds(run: RunRecord) -> list[Kind]:
    return sorted_kinds([score_series(run)])


def test_only_scores_of_inception_have_the_plain_names(tmp_path: Path) -> None:
    run = read_run(
        tmp_path,
        scored(1, {"fid": 30.0, "kid": 0.02, "is": 7.0, "precision": 0.5}),
        scored(1, {"fid": 30.0, "kid": 0.5}, extractor="efficientnet-lite0"),
        scored(1, {"modes": 9.0}, extractor="none"),
    )
    assert [kind.short for kind in kinds(run)] == [
        "FID",
        "KID",
        "IS",
        "Precision [inception-v3-compat]",
        "FID [efficientnet-lite0]",
        "KID [efficientnet-lite0]",
        "Modes found",
    ]


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


def test_details(tmp_path: Path) -> None:
    (kind,) = kinds(
        read_run(tmp_path, scored(1, {"fid": 30.0}, split="test", data="cifar10 test", real_count=10_000))
    )
    assert kind.details == "50,000 fakes, 10,000 reals of cifar10 test at 32, extractor 5eefa9b2"
    (kind,) = kinds(read_run(tmp_path / "is", scored(1, {"is": 7.0})))
    assert kind.details == "50,000 fakes, extractor 5eefa9b2"


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
    assert [of_kid.text(kid, i) for i in range(3)] == ["0.0200 ± 0.0010", "0.0133", "0.0133"]
    assert of_kid.best(kid) == 1  # the earlier of two equal scores
    inception, of_inception = series["is"]
    assert of_inception.best(inception) == 1
    odd, of_odd = series["odd"]
    assert (of_odd.steps, of_odd.best(odd)) == ([1, 2], None)
