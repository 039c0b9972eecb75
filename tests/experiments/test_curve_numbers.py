"""Numbers of curves: a run's score is that of its second half, and arms are apart by Welch's standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from fastdat.experiments.evidence.curve_numbers import (
    apart,
    band,
    best,
    curve,
    last,
    late,
    median_run,
    over_runs,
    verdict,
)
from fastdat.experiments.images.image_study import Trained
from fastdat.experiments.outcome import Runs
from tests.experiments.image_runs import ended, score


def run(kids: Sequence[float], seed: int = 0, *, diverged: bool = False) -> Trained:
    """A run of four steps with a KID after each."""
    return ended("arm", [score(step, kid=kid) for step, kid in enumerate(kids, 1)], seed, diverged=diverged)


def test_a_score_is_the_mean_of_the_second_half() -> None:
    one = run([9.0, 5.0, 2.0, 4.0])  # steps 1 and 2 are the first half
    assert late(one) == 3.0
    assert last(one) == 4.0
    assert best(one) == 2.0
    assert curve(one) == {1: 9.0, 2: 5.0, 3: 2.0, 4: 4.0}


def test_only_the_runs_own_scores_count() -> None:
    lines = [
        score(3, kid=2.0),
        score(3, kid=6.0),  # scored again after a resume: the later one counts
        score(4, kid=8.0),
        {**score(4, kid=100.0), "by": "eval"},
        {**score(4, kid=200.0), "extractor": "mine"},
        {**score(4, kid=300.0), "fake_count": 7},
        score(4, "test", kid=400.0),
        score(2, fid=500.0),
    ]
    assert curve(ended("arm", lines)) == {3: 6.0, 4: 8.0}


def test_cells_leave_out_runs_that_diverged() -> None:
    runs = [run([9, 9, 2, 4]), run([9, 9], 1, diverged=True), run([9, 9, 5, 5], 2)]
    assert over_runs(runs, late) == Runs((3.0, 5.0))
    assert over_runs(runs[1:2], late) == "diverged"
    assert over_runs([], late) is None


def test_a_difference_in_standard_errors() -> None:
    a, b = Runs((1.0, 2.0, 3.0)), Runs((4.0, 8.0))  # variances 1 and 8
    expected = (2.0 - 6.0) / math.sqrt(1 / 3 + 8 / 2)
    assert apart(a, b) == pytest.approx(expected)
    assert apart(b, a) == pytest.approx(-expected)


@pytest.mark.parametrize("base", [Runs((4.0,)), "diverged", None])
def test_no_difference_without_spread_on_both_sides(base: Runs | str | None) -> None:
    assert apart(Runs((1.0, 2.0)), base) is None
    assert apart(base, Runs((1.0, 2.0))) is None


def test_runs_without_any_spread_are_not_compared() -> None:
    assert apart(Runs((1.0, 1.0)), Runs((2.0, 2.0))) is None


def test_three_standard_errors_tell_arms_apart() -> None:
    assert [verdict(x) for x in (-3.0, -2.99, 0.0, 2.99, 3.0)] == [
        "lower",
        "not told apart",
        "not told apart",
        "not told apart",
        "higher",
    ]


def test_the_median_run() -> None:
    runs = [run([0, 0, kid, kid], seed) for seed, kid in enumerate((5.0, 1.0, 3.0))]
    assert median_run(runs) is runs[2]
    assert median_run(runs[:2]) is runs[1]  # of two the better one
    broken = run([0, 0], 3, diverged=True)
    assert median_run([broken, *runs]) is runs[2]
    assert median_run([broken]) is None


def test_a_band_is_mean_and_deviation_at_each_step() -> None:
    runs = [run([8, 1, 2, 4]), run([8, 3, 2, 6], 1), run([100], 2, diverged=True)]
    found = band(runs)
    assert list(found) == [1, 2, 3, 4]
    assert found[1] == (8.0, 0.0)
    assert found[2] == pytest.approx((2.0, math.sqrt(2)))
    assert found[4] == pytest.approx((5.0, math.sqrt(2)))
    assert band(runs[:1])[3] == (2.0, 0.0)
    assert band([]) == {}
