"""The conclusion: by which score, at which step, and what it says about differences within the spread."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdat.report.comparison import ORDER, Comparison, Standing, compare
from fastdat.report.conclusion import _CHANCE, Conclusion, conclude
from fastdat.report.groups import Group, group_runs
from fastdat.report.runs import read_runs
from fastdat.report.score_names import score_names
from fastdat.report.score_table import Kind, score_series
from fastdat.training import preset
from tests.report.runs import make_run, scored

Records = tuple[dict[str, Any], ...]
NO_DAT: dict[str, Any] = {
    "dat": preset("sngan-dat-cifar10").to_dict()["dat"] | {"real": False, "fake": False}
}
KID: dict[str, Any] = {
    "split": "test",
    "extractor": "efficientnet-lite0",
    "fake_count": 1000,
    "real_count": 9000,
    "kid_subsets": 10,
    "kid_subset_size": 100,
}


def kid(step: int, value: float, std: float | None = None, **changes: Any) -> dict[str, Any]:
    return scored(step, {"kid": value, "kid_std": std}, **KID | changes)


def concluded(
    folder: Path,
    runs: Mapping[str, Records],
    configs: Mapping[str, dict[str, Any]] | None = None,
    done: int = 100,
) -> Conclusion:
    """The conclusion on runs of 100 steps.

    Those whose names begin with ``none`` have no DAT; a digit at the end is the seed.
    """
    paths = []
    for name, metrics in runs.items():
        config = {"seed": int(name[-1]) if name[-1].isdigit() else 0}
        config |= NO_DAT if name.startswith("none") else {}
        config |= (configs or {}).get(name, {})
        paths.append(make_run(folder / name, config=config, steps=done, grids=0, metrics=metrics))
    records = read_runs(paths)
    all_series = [score_series(run) for run in records]
    return conclude(records, group_runs(records), all_series, score_names(all_series))


# --- groups of seeds -----------------------------------------------------------------------------------------------


def test_difference_greater_than_the_spread(tmp_path: Path) -> None:
    kids = {"none-0": 1.76, "dat-0": 1.61, "none-1": 1.68, "dat-1": 1.59}
    found = concluded(tmp_path, {name: (kid(100, value),) for name, value in kids.items()})
    assert found.headline == (
        "At step 100, dat (2 seeds) is better than none (2 seeds) by KID test: 1.60 against 1.72 (\u22120.12)."
    )
    assert found.remarks == [
        "The seeds of one group differ by up to 0.08. So few seeds may mislead: of equal groups, one pair in five "
        "differs by more than its seeds do.",
        "What differs in their settings: dat.real and dat.fake.",
    ]
    assert (found.progress, found.score and found.score.label) == ("", "KID test")


def test_difference_within_the_spread(tmp_path: Path) -> None:
    """The groups differ by 0.05, and the seeds of one of them by 0.06."""
    kids = {"none-0": 1.70, "none-1": 1.66, "dat-0": 1.60, "dat-1": 1.66}
    found = concluded(tmp_path, {name: (kid(100, value),) for name, value in kids.items()})
    assert found.headline == (
        "At step 100, dat (2 seeds) is ahead of none (2 seeds) by KID test: 1.63 against 1.68 (\u22120.05), "
        "but the difference is not larger than the spread of the seeds."
    )
    assert found.remarks[0] == "The seeds of one group differ by up to 0.06."


def test_spread_of_one_of_two_groups(tmp_path: Path) -> None:
    """The single run may be far from the mean of its seeds: it is never said to be worse, only to be behind."""
    runs = {"none-0": (kid(100, 1.9),), "dat-0": (kid(100, 1.6),), "dat-1": (kid(100, 1.5),)}
    found = concluded(tmp_path, runs)
    assert found.headline.endswith(
        "dat (2 seeds) is ahead of none-0 by KID test: 1.55 against 1.90 (\u22120.35)."
    )
    assert found.remarks[0] == (
        "The seeds of dat differ by up to 0.10. none-0 has a single seed: another one may turn the order."
    )
    runs["none-0"] = (kid(100, 1.6),)
    assert "not larger than the spread" in concluded(tmp_path / "2", runs).headline


def test_runs_that_share_a_seed_are_no_evidence(tmp_path: Path) -> None:
    """Training is deterministic: a copy of a run has the same scores, which says nothing about other seeds."""
    runs = {
        name: (kid(100, 1.7 if "none" in name else 1.6),) for name in ("none-a", "none-b", "dat-a", "dat-b")
    }
    found = concluded(tmp_path, runs)
    assert found.headline == (
        "At step 100, dat (2 runs) is ahead of none (2 runs) by KID test: 1.60 against 1.70 (\u22120.10)."
    )
    assert found.remarks[0] == "One seed each gives no spread: other seeds may turn the order."
    runs = {"none-1": (kid(100, 1.9),), "none-2": (kid(100, 1.8),), "dat-a": runs["dat-a"], "dat-b": ()}
    assert "dat (1 of 2 runs) is ahead of none (2 seeds)" in concluded(tmp_path / "2", runs).headline
    runs["dat-b"] = runs["dat-a"]
    assert concluded(tmp_path / "3", runs).remarks[0] == (
        "The seeds of none differ by up to 0.10. dat (2 runs) has a single seed: another one may turn the order."
    )


def test_runs_that_share_a_seed_have_the_error_of_one(tmp_path: Path) -> None:
    """A copy halves no error: 0.10 is less than twice the error of a difference of two seeds, 0.13."""
    runs = {name: (kid(100, 1.7 if "none" in name else 1.6, 0.1),) for name in ("none-a", "none-b", "dat-a")}
    assert "not larger than the error of the score" in concluded(tmp_path, runs).headline


def test_runs_that_share_a_seed_count_once_in_the_mean(tmp_path: Path) -> None:
    kids = {"dat-a": 1.0, "dat-b": 1.2, "dat-1": 2.0}
    runs = {name: (kid(100, value),) for name, value in kids.items()}
    assert concluded(tmp_path, runs).headline == (
        "At step 100, dat (3 runs) has KID test 1.55 on average, from 1.10 to 2.00."
    )
    runs["none-0"] = (kid(100, 3.0),)
    found = concluded(tmp_path / "2", runs)
    assert "dat (3 runs) is ahead of none-0 by KID test: 1.55 against 3.00" in found.headline
    assert found.remarks[0].startswith("The seeds of dat differ by up to 0.90.")


@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 3), (2, 4), (3, 3), (5, 2)])
def test_how_often_chance_alone_exceeds_the_spread(first: int, second: int) -> None:
    """The page warns where groups without a difference are told apart more often than once in twenty times."""
    rng, exceeded = np.random.default_rng(0), 0
    kind = Kind("fid", "train", "inception-v3-compat", "G", None, None, ())
    for _ in range(4000):
        standings = [
            Standing(
                Group("a", range(count), [str(i) for i in range(count)]),
                rng.normal(size=count).tolist(),
                [None] * count,
                count,
            )
            for count in (first, second)
        ]
        exceeded += Comparison(kind, 100, standings).exceeds_spread
    said = {"one pair in five": 1 / 5, "one pair in ten": 1 / 10}.get(_CHANCE.get(first + second, ""))
    share = exceeded / 4000
    assert share < 0.062 if said is None else share == pytest.approx(said, abs=0.03)


def test_more_is_better_for_the_inception_score(tmp_path: Path) -> None:
    found = concluded(tmp_path, {"none": (scored(100, {"is": 7.5}),), "dat": (scored(100, {"is": 7.9}),)})
    assert found.headline == "At step 100, dat is ahead of none by IS: 7.90 against 7.50 (+0.40)."


def test_difference_is_not_rounded_to_zero_and_adds_up(tmp_path: Path) -> None:
    fids = {"none": (scored(100, {"fid": 18.0514}),), "dat": (scored(100, {"fid": 18.0486}),)}
    assert "18.049 against 18.051 (\u22120.002)" in concluded(tmp_path, fids).headline
    fids = {"none": (scored(100, {"fid": 18.054}),), "dat": (scored(100, {"fid": 17.996}),)}
    assert "18.00 against 18.05 (\u22120.05)" in concluded(tmp_path / "2", fids).headline


def test_equal_scores(tmp_path: Path) -> None:
    fids = {"none": (scored(100, {"fid": 18.0}),), "dat": (scored(100, {"fid": 18.0}),)}
    assert concluded(tmp_path, fids).headline == "At step 100, none and dat have the same FID train: 18.00."


def test_three_groups(tmp_path: Path) -> None:
    runs = {
        f"size-{size}": (scored(100, {"fid": fid}),) for size, fid in ((16, 19.0), (32, 18.0), (64, 21.0))
    }
    found = concluded(tmp_path, runs, {name: {"batch_size": int(name[-2:]), "seed": 0} for name in runs})
    assert (
        found.headline
        == "At step 100, size-32 is ahead of size-16 by FID train: 18.00 against 19.00 (\u22121.00)."
    )
    assert "Behind them: size-64 21.00." in found.remarks
    assert "What differs in their settings: batch_size." in found.remarks


# --- single runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "doubt"), [(0.07, False), (0.1, True)])
def test_error_of_kid(tmp_path: Path, std: float, doubt: bool) -> None:
    """The scores differ by 0.10: more than twice the standard error of their difference (0.096), or less (0.14)."""
    found = concluded(tmp_path, {"none-0": (kid(100, 1.7, std),), "dat-0": (kid(100, 1.6, std),)})
    assert ("but the difference is not larger than the error of the score" in found.headline) is doubt
    assert "dat-0 is ahead of none-0 by KID test: 1.60 against 1.70 (\u22120.10)" in found.headline
    twice = 2 * 2**0.5 * std * (10 / 9 * (1 / 10 + 1 / 9)) ** 0.5
    assert found.remarks[0] == (
        f"Twice the standard error of the difference is {twice:.2f}. One seed each gives no spread: other seeds may "
        "turn the order."
    )


def test_single_runs_without_a_known_error(tmp_path: Path) -> None:
    found = concluded(tmp_path, {"none-0": (scored(100, {"fid": 20}),), "dat-0": (scored(100, {"fid": 10}),)})
    assert "dat-0 is ahead of none-0" in found.headline
    assert found.remarks[0] == "One seed each gives no spread: other seeds may turn the order."


# --- which step and which score ------------------------------------------------------------------------------------


def test_equal_steps(tmp_path: Path) -> None:
    """At step 80 the order is another one, but only one group has that score."""
    none = tuple(scored(step, {"fid": fid}) for step, fid in ((20, 40.0), (40, 30.0), (80, 10.0)))
    dat = tuple(scored(step, {"fid": fid}) for step, fid in ((20, 35.0), (40, 25.0), (60, 20.0)))
    found = concluded(tmp_path, {"none-0": none, "dat-0": dat}, done=90)
    assert found.headline.startswith("At step 40, dat-0 is ahead of none-0 by FID train: 25.00 against 30.00")
    assert (
        "Step 40 is the last with this score of all of them; some have later ones, up to 80." in found.remarks
    )
    assert found.progress == (
        "In progress, or stopped early: none-0 (90 of 100 steps) and dat-0 (90 of 100 steps)."
    )


def test_later_step_of_another_score_is_named(tmp_path: Path) -> None:
    """FID decides, as ever, but it was measured of a checkpoint in the middle only."""
    fid = {"none-0": scored(10, {"fid": 30.0}), "dat-0": scored(10, {"fid": 20.0})}
    runs = {name: (record, kid(10, 1.8), kid(20, 1.5)) for name, record in fid.items()}
    found = concluded(tmp_path, runs)
    assert found.headline.startswith("At step 10, dat-0 is ahead of none-0 by FID train")
    later = "KID test was measured of all of them up to step 20; this conclusion is about step 10."
    assert later in found.remarks
    unknown = scored(30, {"mine": 1.0})
    assert later in concluded(tmp_path / "2", {n: (*r, unknown) for n, r in runs.items()}).remarks
    latest = (scored(30, {"is": 7.0}), scored(30, {"kl": 0.2}))
    found = concluded(tmp_path / "3", {name: (*records, *latest) for name, records in runs.items()})
    assert [words for words in found.remarks if "was measured" in words] == [
        "IS was measured of all of them up to step 30; this conclusion is about step 10."
    ]


@pytest.mark.parametrize(("none", "dat"), [((10,), (10, 20)), ((20,), (30,)), ((), (20,))])
def test_later_step_of_some_runs_is_no_step_of_all(
    tmp_path: Path, none: tuple[int, ...], dat: tuple[int, ...]
) -> None:
    runs = {
        name: (scored(10, {"fid": 30.0}), *(kid(step, 1.8) for step in steps))
        for name, steps in (("none-0", none), ("dat-0", dat))
    }
    assert not any("was measured" in words for words in concluded(tmp_path, runs).remarks)


def test_a_step_of_all_seeds_goes_before_a_later_one_of_some(tmp_path: Path) -> None:
    runs = {
        "none-0": (kid(50, 1.9), kid(100, 1.8)),
        "none-1": (kid(50, 1.9),),
        "dat-0": (kid(50, 1.7), kid(100, 1.5)),
    }
    assert concluded(tmp_path, runs).headline.startswith("At step 50, dat-0 is ahead of none (2 seeds)")
    runs["none-1"] = (kid(60, 1.9),)  # now there is no step of all three
    found = concluded(tmp_path / "2", runs)
    assert found.headline.startswith("At step 100, dat-0 is ahead of none (1 of 2 seeds)")


def test_order_of_scores(tmp_path: Path) -> None:
    """The runs have one more score of ``ORDER`` each time, from the last to the first: the newest one decides."""
    scores: dict[str | None, dict[str, float | None]] = {}
    for number, (name, split) in enumerate(reversed(ORDER)):
        scores.setdefault(split or "train", {})[name] = 5.0
        metrics = tuple(scored(100, values, split=part) for part, values in scores.items())
        runs = [
            make_run(tmp_path / f"{number}-{size}", config={"batch_size": size}, metrics=metrics)
            for size in (8, 9)
        ]
        records = read_runs(runs)
        found = compare(group_runs(records), [score_series(run) for run in records])
        assert found is not None
        assert (found.kind.name, found.kind.split) == (name, split)


@pytest.mark.parametrize(
    "change",
    [{"extractor": "another"}, {"fake_count": 1000}, {"real_count": 2}],
    ids=lambda change: next(iter(change)),
)
def test_inception_and_more_images_decide(tmp_path: Path, change: dict[str, Any]) -> None:
    worse = {"split": "test", **change}
    none = (scored(100, {"fid": 20.0}, split="test"), scored(100, {"fid": 1.0}, **worse))
    dat = (scored(100, {"fid": 10.0}, split="test"), scored(100, {"fid": 2.0}, **worse))
    assert "10.00 against 20.00" in concluded(tmp_path, {"none-0": none, "dat-0": dat}).headline


def test_score_that_more_groups_share(tmp_path: Path) -> None:
    metrics = [
        (scored(100, {"fid": 9.0}), kid(100, 2.0)),
        (scored(100, {"fid": 8.0}), kid(100, 1.0)),
        (kid(100, 1.5),),
    ]
    runs = {f"size-{size}": records for size, records in zip((16, 32, 64), metrics, strict=True)}
    configs = {name: {"batch_size": int(name[-2:]), "seed": 0} for name in runs}
    assert "size-32 is ahead of size-64 by KID test" in concluded(tmp_path, runs, configs).headline
    runs["size-64"] = ()
    found = concluded(tmp_path / "2", runs, configs)
    assert "size-32 is ahead of size-16 by FID train" in found.headline
    assert "Without this score at step 100: size-64." in found.remarks


# --- no comparison -------------------------------------------------------------------------------------------------


def test_no_scores(tmp_path: Path) -> None:
    found = concluded(tmp_path, {"none-0": (), "dat-0": ()}, done=20)
    assert found.headline == "The runs have no scores yet."
    assert "fastdat eval RUN" in found.remarks[0]
    assert "none-0 (20 of 100 steps)" in found.progress
    assert concluded(tmp_path / "one", {"dat-0": ()}).headline == "dat-0 has no scores yet."


def test_scores_of_one_group_only(tmp_path: Path) -> None:
    found = concluded(tmp_path, {"none-0": (), "dat-0": (kid(100, 1.0),), "dat-1": (kid(100, 1.0),)})
    assert found.headline == "No comparison yet: only dat (2 seeds) has scores."


def test_scores_that_were_measured_in_different_ways(tmp_path: Path) -> None:
    runs = {"none-0": (kid(100, 1.7),), "dat-0": (scored(100, {"fid": 9.0}),)}
    found = concluded(tmp_path, runs)
    assert found.headline == (
        "No comparison: the scores were not measured in the same way; none-0 has KID test, dat-0 has FID train."
    )
    runs["dat-0"] = (kid(100, 1.6, fake_count=2000),)
    assert (
        "none-0 has KID test, 1,000 fakes, dat-0 has KID test, 2,000 fakes"
        in concluded(tmp_path / "2", runs).headline
    )
    assert found.score is None


def test_no_equal_steps(tmp_path: Path) -> None:
    many = tuple(kid(step, 1.7) for step in (10, 20, 30, 40, 50))
    found = concluded(tmp_path, {"none-0": many, "dat-0": (kid(100, 1.6),)})
    assert found.headline == (
        "No comparison at equal steps: KID test was measured of none-0 at ..., 20, 30, 40, 50 and dat-0 at 100."
    )
    assert "--checkpoint" in found.remarks[0]


def test_scores_of_unknown_direction(tmp_path: Path) -> None:
    mine = (scored(100, {"mine": 1.0}),)
    assert "is not known whether more or less" in concluded(tmp_path, {"dat-0": mine}).headline
    assert "No comparison" in concluded(tmp_path / "2", {"none-0": mine, "dat-0": mine}).headline


# --- one group -----------------------------------------------------------------------------------------------------


def test_one_run(tmp_path: Path) -> None:
    worse = (kid(50, 1.7, 0.1), kid(100, 1.8, 0.1))
    found = concluded(tmp_path, {"dat-0": worse})
    assert (
        found.headline == "dat-0 has KID test 1.80 ± 0.05 at step 100; its best was 1.70 ± 0.05 at step 50."
    )
    assert found.remarks == []
    better = (kid(50, 1.8), kid(100, 1.7))
    assert (
        concluded(tmp_path / "2", {"dat-0": better}).headline
        == "dat-0 has KID test 1.70 at step 100, its best."
    )
    assert concluded(tmp_path / "3", {"dat-0": better[1:]}).headline == "dat-0 has KID test 1.70 at step 100."
    live = concluded(tmp_path / "4", {"dat-0": better}, done=60)
    assert live.headline == "dat-0 has KID test 1.70 at step 100, its best."


def test_one_run_in_progress(tmp_path: Path) -> None:
    found = concluded(tmp_path, {"dat-0": (kid(20, 1.8), kid(50, 1.7))}, done=60)
    assert found.headline == "dat-0 has KID test 1.70 at step 50, its best so far."
    assert found.progress == "In progress, or stopped early: dat-0 (60 of 100 steps)."


def test_one_group(tmp_path: Path) -> None:
    runs = {"dat-0": (kid(50, 2.0), kid(100, 1.7)), "dat-1": (kid(50, 2.0),), "dat-2": (kid(50, 1.7),)}
    assert concluded(tmp_path, runs).headline == (
        "At step 50, dat (3 seeds) has KID test 1.90 on average, from 1.70 to 2.00."
    )
    runs["dat-2"] = ()
    assert "dat (2 of 3 seeds) has KID test 2.00 on average" in concluded(tmp_path / "2", runs).headline


def test_a_score_without_an_abbreviation_is_small_within_a_sentence(tmp_path: Path) -> None:
    found = concluded(tmp_path, {"run": (scored(20, {"modes": 7.0}, extractor="none"),)})
    assert found.headline.startswith("run has modes found 7")
