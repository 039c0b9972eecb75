"""Table III on points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Runs
from fastdat.experiments.points import quick_study, table3
from fastdat.experiments.points.ensemble import Recipe
from fastdat.regularizers import GP, ZeroGP
from tests.experiments.made_results import made_result
from tests.experiments.point_runs import TINY, cells, expected


def test_studies_of_table3() -> None:
    studies = {study.recipe.loss: study for study in table3.studies(Options())}
    assert list(studies) == ["gan", "lsgan", "wgan", "lsgan-sigmoid", "wgan-sigmoid"]
    assert [len(study.arms) for study in studies.values()] == [11, 11, 11, 4, 4]
    assert {(study.iterations, study.measurements[0], study.seeds) for study in studies.values()} == {
        (1_500, 300, 4)
    }
    wgan = studies["wgan"]
    assert wgan.recipe_of("GP 10").regularizers == (GP(10.0),)
    assert wgan.recipe_of("GP 10").loss == "wgan"
    assert wgan.recipe_of("DAT + 0-GP both 0.1").regularizers == (ZeroGP("both", 0.1),)
    datt: Any = wgan.arms["DATT"]
    assert datt.clean_weight == 1.0


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("gan: DAT", {"gan": ["DAT"]}),  # not lsgan, wgan; not DATT
        ("wgan-sigmoid: 0-GP", {"wgan-sigmoid": ["DAT + 0-GP both 0.1", "0-GP both 0.1"]}),
        ("lsgan-sigmoid", {"lsgan-sigmoid": ["none", "DAT", "DAT + 0-GP both 0.1", "0-GP both 0.1"]}),
        ("gan:", {"gan": list(table3.ARMS)}),
        ("ASGAN", {loss: ["ASGAN"] for loss in ("gan", "lsgan", "wgan")}),
        ("DAT", {loss: ["DAT"] for loss in table3.LOSSES}),
        ("real", {loss: ["0-GP real 10"] for loss in ("gan", "lsgan", "wgan")}),
    ],
)
def test_only_of_table3(only: str, expected: dict[str, list[str]]) -> None:
    found = table3.studies(Options(only=(only,)))
    assert {study.recipe.loss: list(study.arms) for study in found} == expected


@pytest.mark.usefixtures("short")
def test_table3_from_training_to_table(tmp_path: Path) -> None:
    options = Options(only=("lsgan-sigmoid: none", "wgan: DATT", "wgan: 0-GP real"), **TINY)
    outcome = table3.run(options, tmp_path)
    modes, kl, wgan, sigmoid = outcome.tables
    for overview in (modes, kl):
        assert [row.label for row in overview.rows] == ["wgan", "lsgan-sigmoid"]
        assert [column.name for column in overview.columns] == ["none", "0-GP real 10", "DATT"]
        assert [column.name for column in overview.paper_columns] == ["none", "0-GP real 10", "DATT"]
        assert overview.rows[0].paper == {"0-GP real 10": 43.06, "DATT": 25.66}
        assert overview.rows[1].paper == {"none": 25.20}
        assert not overview.comparable
    for table, what in ((modes, "modes"), (kl, "KL")):
        balanced, imbalanced = (wgan.rows[1].cells[f"{what}, {m}"] for m in ("balanced", "imbalanced"))
        means = [(a + b) / 2 for a, b in zip(balanced.values, imbalanced.values, strict=True)]  # type: ignore[union-attr]
        assert table.rows[0].cells["DATT"].values == pytest.approx(means)  # type: ignore[union-attr]
    penalty = Recipe(loss="wgan", regularizers=(ZeroGP("real", 10.0),))
    assert dict(wgan.rows[0].cells) == expected(quick_study.NO_ATTACK, penalty)
    assert [(row.label, row.paper) for row in wgan.rows] == [
        ("0-GP real 10", {"train FID": 43.06}),
        ("DATT", {"train FID": 25.66}),
    ]
    assert [(row.label, row.paper) for row in sigmoid.rows] == [("none", {"train FID": 25.20})]
    assert list(outcome.details["losses"]) == ["wgan", "lsgan-sigmoid"]
    assert outcome.config["losses"] == ["wgan", "lsgan-sigmoid"]
    assert "loss" not in outcome.config["recipe"]


def test_table3_findings() -> None:
    """KL as the paper's order for gan, but for GP and DAT, which change places."""
    options = Options(seeds=1, only=("gan: ",))
    study = next(study for study in table3.studies(options) if study.recipe.loss == "gan")
    kl = {
        "none": 0.8, "GP 10": 0.2, "LP 10": 0.4, "0-GP real 10": 0.7, "AR 10": 0.6, "ASGAN": 0.3, "DAT": 0.5,
        "DATT": 0.1, "DAT, second order": 0.9, "DAT + 0-GP both 0.1": 0.05, "0-GP both 0.1": 1.0,
    }  # fmt: skip
    numbers = {name: ((5.0, 0.5, value), (5.0, 0.9, value)) for name, value in kl.items()}
    numbers["DAT"] = ((5.4, 0.6, 0.4), (5.4, 0.9, 0.6))
    numbers["AR 10"] = ((4.8, 0.1, 0.6), (4.8, 0.1, 0.6))  # blurs, but finds fewer
    numbers["LP 10"] = ((9.0, 0.6, 0.4), (9.0, 0.8, 0.4))  # a difference within the margin
    found = table3.outcome([made_result(study, numbers)], options).findings
    assert len(found) == 2
    assert found[0].startswith(
        "gan: DAT (5.4 / 5.4 modes, quality 0.60 / 0.90, KL 0.40 / 0.60) has place 6 of 11 by KL, beside none (5.0 / "
        "5.0 modes, quality 0.50 / 0.90, KL 0.80 / 0.80). The lowest KL is that of DAT + 0-GP both 0.1 (5.0 / 5.0 modes"
    )
    # Places by KL and by the paper's FID: none 8 8, GP 2 5, LP 4 4, 0-GP 7 7, AR 6 6, ASGAN 3 3, DAT 5 2, DATT 1 1.
    assert found[-1] == (
        "Rank correlation of our KL with the paper's train FID over the methods that both have; 1 is the same order, 0 "
        f"none: {1 - 6 * 18 / (8 * 63):+.2f} (gan)."
    )


def test_the_headline_of_several_losses() -> None:
    options = Options(seeds=1, only=("gan: none", "gan: DAT", "lsgan: none", "lsgan: DAT", "wgan: DAT"))
    results = []
    for study, kl in zip(table3.studies(options), (0.5, 0.125, 0.25), strict=True):
        numbers = {"none": ((5, 0.9, 0.25), (5, 0.9, 0.25)), "DAT": ((5, 0.9, kl), (5, 0.9, kl))}
        results.append(made_result(study, {name: numbers[name] for name in study.arms}))
    found = table3.outcome(results, options).findings
    # wgan has nothing to compare DAT with.
    assert found[0] == "DAT's place by KL: 2 of 2 with gan, 1 of 2 with lsgan."
    assert len(found) == 3


def test_what_blurs() -> None:
    options = Options(seeds=1, only=("wgan-sigmoid",))
    (study,) = table3.studies(options)
    dat = ((5.0, 0.6, 0.1), (5.0, 0.8, 0.1))
    numbers = {
        "none": ((4.4, 0.1, 0.1), (4.4, 0.1, 0.1)),  # blurs, but finds fewer modes
        "DAT": dat,
        "DAT + 0-GP both 0.1": ((4.6, 0.6, 0.1), (4.6, 0.6, 0.1)),
        "0-GP both 0.1": ((9.0, 0.6, 0.1), (9.0, 0.72, 0.1)),  # a difference within the margin
    }
    (found,) = table3.outcome([made_result(study, numbers)], options).findings
    assert found.endswith(
        " About as many modes as DAT (at most 0.5 fewer) or more, but of lower quality: DAT + 0-GP both 0.1."
    )


def test_diverged_arms_of_table3() -> None:
    """One arm of a loss, all arms of another one: the rest has its page."""
    options = Options(seeds=1, only=("gan: none", "gan: DAT", "wgan: DAT"))
    gan, wgan = table3.studies(options)
    whole = made_result(gan, {"none": ((5, 0.9, 0.5), (4, 0.9, 0.5)), "DAT": ((8, 0.9, 0.1), (8, 0.9, 0.1))})
    of_wgan = made_result(wgan, {"DAT": ((8, 0.9, 0.1), (8, 0.9, 0.1))})
    results = [
        replace(whole, arms=whole.arms[1:], diverged={"none": "none: NaN"}),
        replace(of_wgan, arms=(), diverged={"DAT": "DAT: NaN"}),
    ]
    outcome = table3.outcome(results, options)
    assert outcome.tables[0].rows[0].cells == {"DAT": Runs((8.0,)), "none": "diverged"}
    assert outcome.tables[1].rows[1].cells == {"DAT": "diverged"}
    left_out = [text for text in outcome.protocol if text.startswith("Left out")]
    assert left_out == ["Left out: none: NaN, with gan.", "Left out: DAT: NaN, with wgan."]
    assert cells(outcome, 2)["none"]["KL, balanced"] == "diverged"


def test_equal_values_have_no_rank_correlation() -> None:
    options = Options(seeds=1, only=("gan",))
    (study,) = table3.studies(options)
    found = table3.outcome([made_result(study, dict.fromkeys(study.arms, ((5, 0.5, 0.5),) * 2))], options)
    assert not [sentence for sentence in found.findings if "correlation" in sentence]


def test_ranks() -> None:
    assert table3._ranks([3.0, 1.0, 3.0, 9.0]) == [2.5, 1.0, 2.5, 4.0]
