"""Figs. 5, 6 and 7 and Tables III and IV on points."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.catalogue import CATALOGUE, Options, load
from fastdat.experiments.images import sngan_sweeps, table3_images, table4_images
from fastdat.experiments.outcome import Outcome, Runs
from fastdat.experiments.points import fig5_points, fig6, fig7, quick_study, table3, table4
from fastdat.experiments.points.ensemble import Ensemble, Recipe
from fastdat.metrics.modes import coverage
from fastdat.regularizers import GP, ZeroGP
from fastdat.util.errors import ConfigError
from tests.experiments.made_results import made_result

TINY: dict[str, Any] = {"seeds": 2, "compile": False, "device": "cpu"}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations in place of 2,500, and one measurement."""
    monkeypatch.setattr(quick_study, "_PARTS", 1)
    for module in (quick_study, table3):
        monkeypatch.setattr(module, "ITERATIONS", 2)


def cells(outcome: Outcome, table: int = 0) -> dict[str, dict[str, Any]]:
    return {row.label: dict(row.cells) for row in outcome.tables[table].rows}


def expected(attack: Any, recipe: Recipe) -> dict[str, Any]:
    """The cells of an arm after two iterations of seeds 0 and 1, without any code of studies or tables."""
    ensemble = Ensemble((BALANCED, IMBALANCED), (0, 1), attack, recipe)
    ensemble.train(2)
    found = {}
    for mixture, points in zip((BALANCED, IMBALANCED), ensemble.sample(10_000), strict=True):
        seen = coverage(points, mixture)
        found[f"modes, {mixture.name}"] = Runs(tuple(map(float, seen.modes)))
        found[f"quality, {mixture.name}"] = Runs(tuple(seen.high_quality.tolist()))
        found[f"KL, {mixture.name}"] = Runs(tuple(seen.kl.tolist()))
    return found


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "images", "name"),
    [
        (fig6, sngan_sweeps, "run_fig6"),
        (fig7, sngan_sweeps, "run_fig7"),
        (table3, table3_images, "run"),
        (table4, table4_images, "run"),
    ],
)
def test_full_length_is_on_images(
    module: Any, images: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(images, name, lambda *arguments: calls.append(arguments))
    options = Options(quick=False)
    module.run(options, tmp_path)
    assert calls == [(options, tmp_path)]


@pytest.mark.parametrize("name", ["fig6", "fig7", "table3", "table4"])
def test_catalogue(name: str) -> None:
    assert CATALOGUE[name].data is None  # the quick version needs none
    with pytest.raises(ConfigError, match="--only nothing leaves no arm"):
        load(name).run(Options(only=("nothing",), **TINY), Path("unused"))


# --- Fig. 6 ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_fig6_from_training_to_table(tmp_path: Path) -> None:
    outcome = fig6.run(Options(only=("no attack", "eps 0.6", "eps 3"), **TINY), tmp_path)
    found = cells(outcome)
    assert list(found) == ["no attack", "eps 0.6", "eps 3"]
    for name, eps in (("eps 0.6", 0.6), ("eps 3", 3.0)):
        attack = quick_study.DATConfig(bounds=None, eps=eps)
        assert found[name] == expected(attack, Recipe())
    assert found["no attack"] != found["eps 0.6"] != found["eps 3"]
    assert outcome.details["arms"]["eps 3"]["attack"]["eps"] == 3.0
    assert outcome.config["iterations"] == 2
    assert list(outcome.figures) == [""]
    assert outcome.quick
    assert "scaled down" in outcome.title


def test_fig6_findings() -> None:
    study = fig6.study(Options(seeds=1))
    assert next(iter(study.arms)) == "no attack"
    assert [float(name.removeprefix("eps ")) for name in list(study.arms)[1:]] == [
        0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 2.0, 3.0,
    ]  # fmt: skip
    numbers = {name: ((8, 0.8, 0.1 + k / 10), (7, 0.9, 0.1)) for k, name in enumerate(study.arms)}
    numbers["eps 0.8"] = ((9, 0.7, 0.02), (9, 0.8, 0.04))
    numbers["no attack"] = ((5, 0.9, 0.75), (4, 0.9, 0.1))
    found = fig6.outcome(made_result(study, numbers), Options(seeds=1)).findings
    assert found == (
        "The lowest KL is at eps 0.8 (9.0 / 9.0 modes, quality 0.70 / 0.80, KL 0.02 / 0.04); the paper's best FID is "
        "around eps 0.6.",
        "The highest KL is at eps 3 (8.0 / 7.0 modes, quality 0.80 / 0.90, KL 1.00 / 0.10).",
        "6 of 9 levels have a lower KL, mean of both mixtures, than no attack (5.0 / 4.0 modes, quality 0.90 / 0.90, "
        "KL 0.75 / 0.10).",
    )


# --- Fig. 7 ----------------------------------------------------------------------------------------------------------


def test_fig7() -> None:
    study = fig7.study(Options(seeds=1))
    assert len(study.arms) == 11
    attack: Any = study.arms["eps 0.6, K 4"]
    assert (attack.eps, attack.steps, attack.eps_batch, attack.bounds) == (0.6, 4, 64, None)
    numbers = {name: ((8, 0.8, 1.0 - k / 20), (7, 0.9, 0.5)) for k, name in enumerate(study.arms)}
    numbers["eps 0.6, K 3"] = ((9, 0.7, 0.02), (9, 0.8, 0.04))
    outcome = fig7.outcome(made_result(study, numbers), Options(seeds=1))
    assert outcome.findings == (
        "eps = 0.6, K = 1, 2, 3, 4, 5: KL 0.72, 0.70, 0.03, 0.65, 0.62, mean of both mixtures.",
        "eps = 1, K = 1, 2, 3, 4, 5: KL 0.60, 0.57, 0.55, 0.53, 0.50, mean of both mixtures.",
        "The lowest KL is at eps 0.6, K 3 (9.0 / 9.0 modes, quality 0.70 / 0.80, KL 0.02 / 0.04); the paper's best FID "
        "is at eps 0.6, K 2.",
        "For comparison: no attack (8.0 / 7.0 modes, quality 0.80 / 0.90, KL 1.00 / 0.50).",
    )
    panels = outcome.figures[""].axes
    assert [axes.get_title() for axes in panels[:2]] == ["eps = 0.6", "eps = 1"]
    balanced = next(line for line in panels[4].lines if line.get_label() == "balanced")
    assert list(balanced.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(balanced.get_ydata()) == pytest.approx([0.95, 0.9, 0.02, 0.8, 0.75])


@pytest.mark.usefixtures("short")
def test_fig7_trains_its_steps(tmp_path: Path) -> None:
    found = cells(fig7.run(Options(only=("eps 1, K 2",), **TINY), tmp_path))
    attack = quick_study.DATConfig(bounds=None, eps=1.0, steps=2)
    assert found == {"eps 1, K 2": expected(attack, Recipe())}


# --- Table IV --------------------------------------------------------------------------------------------------------


def test_positions_of_table4() -> None:
    study = table4.study(Options())
    labels = [table4.POSITIONS[name].label for name in study.arms if name.endswith("eps / 64")]
    assert labels == [
        "Baseline",
        "Generator only, pass",
        "Generator only, cut",
        "Real only",
        "Fake only",
        "Discriminator only",
        "All, pass",
        "All, cut",
    ]
    unscaled = [table4.POSITIONS[name].label for name in study.arms if name.endswith("eps unscaled")]
    assert unscaled == [label for label in labels if label not in ("Baseline", "Generator only, cut")]
    where = {
        name.split(", eps")[0]: (
            study.arms[name].real,
            study.arms[name].fake,
            study.recipe_of(name).dat_generator,
        )
        for name in study.arms
    }
    assert where["Baseline"] == (False, False, "none")
    assert where["Generator only, cut"] == (False, False, "cut")
    assert where["Real only"] == (True, False, "none")
    assert where["Fake only"] == (False, True, "none")
    assert where["All, pass"] == (True, True, "pass")
    scales = {study.arms[name].eps_batch for name in study.arms if "unscaled" in name}  # type: ignore[union-attr]
    assert scales == {1}


@pytest.mark.usefixtures("short")
def test_table4_from_training_to_table(tmp_path: Path) -> None:
    outcome = table4.run(Options(only=("Generator only", "All, pass"), **TINY), tmp_path)
    scaled, unscaled = cells(outcome), cells(outcome, 1)
    assert list(scaled) == [
        "Generator only, pass",
        "Generator only, cut",
        "All, pass",
        "G untrained",
    ]
    assert scaled["Generator only, cut"] == scaled["G untrained"] == unscaled["G untrained"]
    assert scaled["Generator only, pass"] != scaled["G untrained"]
    attack = quick_study.DATConfig(bounds=None, eps_batch=1)
    assert unscaled["All, pass"] == expected(attack, Recipe(dat_generator="pass"))
    assert unscaled["All, pass"] != scaled["All, pass"]
    row = outcome.tables[0].rows[0]
    assert row.paper == {
        "IS": 1.59,
        "train FID": 309,
        "test FID": 310.5,
        "train KID": 0.3836,
        "test KID": 0.3822,
    }
    assert outcome.details["arms"]["All, pass, eps / 64"]["recipe"] == {"dat_generator": "pass"}
    assert not outcome.tables[0].comparable


def test_table4_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = {
        "modes, balanced": Runs((9.0,)),
        "quality, balanced": Runs((0.1,)),
        "quality, imbalanced": Runs((0.3,)),
    }
    monkeypatch.setattr(table4, "untrained", lambda study: chance)
    study = table4.study(Options(seeds=1))
    numbers = {name: ((k, 0.8, 0.1), (k / 10, 0.9, 0.2)) for k, name in enumerate(study.arms)}
    numbers["Generator only, cut, eps / 64"] = ((9, 0.2, 0.1), (9, 0.28, 0.1))
    numbers["All, cut, eps unscaled"] = ((9, 0.2, 0.1), (9, 0.31, 0.1))  # mean 0.255
    found = table4.outcome(made_result(study, numbers), Options(seeds=1)).findings
    assert found == (
        "An untrained G has quality 0.20. Rows with position (iii) that end there: Generator only, cut, eps / 64. Rows "
        "that do not: Generator only, pass, eps / 64 0.85; All, pass, eps / 64 0.85; All, cut, eps / 64 0.85; "
        "Generator only, pass, eps unscaled 0.85; All, pass, eps unscaled 0.85; All, cut, eps unscaled 0.26.",
        "Modes found with DAT in D's step, eps / 64: Real only 3.0 / 0.3, Fake only 4.0 / 0.4, Discriminator only "
        "5.0 / 0.5; Baseline 0.0 / 0.0.",
        "Modes found, eps / 64: Baseline 0.0 / 0.0; Generator only, pass 1.0 / 0.1.",
        "Modes found, eps / 64: Discriminator only 5.0 / 0.5; All, pass 6.0 / 0.6.",
        "Modes found with DAT in D's step, eps unscaled: Real only 9.0 / 0.9, Fake only 10.0 / 1.0, Discriminator only "
        "11.0 / 1.1; Baseline 0.0 / 0.0.",
        "Modes found, eps unscaled: Baseline 0.0 / 0.0; Generator only, pass 8.0 / 0.8.",
        "Modes found, eps unscaled: Discriminator only 11.0 / 1.1; All, pass 12.0 / 1.2.",
    )


def test_second_order_in_g_equals_pass_on_points() -> None:
    """Why the table has no such rows: G's gradient through the change is zero where D is piecewise linear."""
    wirings = ("pass", "second_order")
    found = [expected(quick_study.DAT, Recipe(dat_generator=wiring)) for wiring in wirings]
    assert found[0] == found[1] != expected(quick_study.DAT, Recipe())


# --- Table III -------------------------------------------------------------------------------------------------------


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
    (only,) = table3.studies(Options(only=("wgan-sigmoid: DAT",)))
    assert (only.recipe.loss, list(only.arms)) == ("wgan-sigmoid", ["DAT", "DAT + 0-GP both 0.1"])


@pytest.mark.usefixtures("short")
def test_table3_from_training_to_table(tmp_path: Path) -> None:
    options = Options(only=("lsgan-sigmoid: none", "wgan: DATT", "wgan: 0-GP real"), **TINY)
    outcome = table3.run(options, tmp_path)
    overview, wgan, sigmoid = outcome.tables
    assert [row.label for row in overview.rows] == ["wgan", "lsgan-sigmoid"]
    assert [column.name for column in overview.columns] == ["none", "0-GP real 10", "DATT"]
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
    assert found[0] == (
        "gan: DAT (5.4 / 5.4 modes, quality 0.60 / 0.90, KL 0.40 / 0.60) has place 6 of 11 by KL, beside none (5.0 / "
        "5.0 modes, quality 0.50 / 0.90, KL 0.80 / 0.80)."
    )
    assert found[1].startswith("gan: the lowest KL is that of DAT + 0-GP both 0.1 (5.0 / 5.0 modes")
    # Places by KL and by the paper's FID: none 8 8, GP 2 5, LP 4 4, 0-GP 7 7, AR 6 6, ASGAN 3 3, DAT 5 2, DATT 1 1.
    assert found[-1].startswith(
        f"gan: rank correlation of our KL with the paper's train FID over the 8 methods that both have: "
        f"{1 - 6 * 18 / (8 * 63):+.2f}"
    )


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
    found = table3.outcome([made_result(study, numbers)], options).findings
    assert "wgan-sigmoid: as many modes as DAT or more, but of lower quality: DAT + 0-GP both 0.1." in found


def test_ranks() -> None:
    assert table3._ranks([3.0, 1.0, 3.0, 9.0]) == [2.5, 1.0, 2.5, 4.0]


# --- Fig. 5 ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_fig5_on_points(tmp_path: Path) -> None:
    part = fig5_points.run_points(Options(**TINY), tmp_path)
    rows = {row.label: dict(row.cells) for row in part.table.rows}
    assert list(rows) == ["0-GP real 10", "0-GP both 0.1", "DAT", "DAT + 0-GP both 0.1"]
    assert rows["DAT"] == expected(quick_study.DAT, Recipe(loss="wgan"))
    assert len(part.findings) == 4
    assert [axes.get_title() for axes in part.figure.axes[:2]] == ["real", "0-GP real 10"]
    assert part.seconds > 0
    assert not torch.equal(
        *(torch.tensor(rows[name]["KL, balanced"].values) for name in ("DAT", "0-GP both 0.1"))
    )
