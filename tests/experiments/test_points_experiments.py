"""Figs. 5, 6 and 7 and Table IV on points, and what they share with Table III."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastdat.experiments.catalogue import CATALOGUE, Options, load
from fastdat.experiments.images import sngan_sweeps, table3_images, table4_images
from fastdat.experiments.outcome import Runs
from fastdat.experiments.points import fig5_points, fig6, fig7, quick_study, table3, table4
from fastdat.experiments.points.ensemble import Recipe
from fastdat.util.errors import ConfigError
from tests.experiments.made_results import made_result
from tests.experiments.point_runs import TINY, cells, expected

# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "images", "name"),
    [
        (fig6, sngan_sweeps, "run_fig6"),
        (fig7, sngan_sweeps, "run_fig7"),
        (table3, table3_images, "run"),
        (table4, table4_images, "run_table4"),
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
    labels = ["Generator only, pass", "Generator only, cut", "All, pass", "G untrained"]
    assert list(scaled) == list(unscaled) == labels
    assert scaled["Generator only, cut"] == scaled["G untrained"] == unscaled["G untrained"]
    assert unscaled["Generator only, cut"] == scaled["Generator only, cut"]
    assert "exactly those of an untrained G: Generator only, cut, eps / 64. Other" in outcome.findings[0]
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
        "KL, balanced": Runs((0.5,)),
        "modes, imbalanced": Runs((8.0,)),
        "quality, imbalanced": Runs((0.3,)),
        "KL, imbalanced": Runs((0.4,)),
    }
    monkeypatch.setattr(table4, "untrained", lambda result: chance)
    study = table4.study(Options(seeds=1))
    numbers = {name: ((k, 0.8, 0.1), (k / 10, 0.9, 0.2)) for k, name in enumerate(study.arms)}
    numbers["Generator only, cut, eps / 64"] = ((9, 0.1, 0.5), (8, 0.3, 0.4))
    numbers["All, cut, eps / 64"] = ((0, 0.0, 9.0), (0, 0.0, 9.0))  # worse than untrained
    numbers["All, pass, eps unscaled"] = ((9, 0.2, 0.1), (9, 0.28, 0.1))  # 0.24: within the margin
    numbers["All, cut, eps unscaled"] = ((9, 0.2, 0.1), (9, 0.31, 0.1))  # 0.255
    outcome = table4.outcome(made_result(study, numbers), Options(seeds=1))
    found = outcome.findings

    def words(label: str, k: int) -> str:
        return f"{label} ({k:.1f} / {k / 10:.1f} modes, quality 0.80 / 0.90, KL 0.10 / 0.20)"

    assert found == (
        "An untrained G has quality 0.20. Rows with position (iii) whose cells are exactly those of an untrained G: "
        "Generator only, cut, eps / 64. Other rows, of no better quality: All, cut, eps / 64 0.00; All, pass, eps "
        "unscaled 0.24. Of better quality: Generator only, pass, eps / 64 0.85; All, pass, eps / 64 0.85; Generator "
        "only, pass, eps unscaled 0.85; All, cut, eps unscaled 0.26.",
        f"DAT in D's step, eps / 64: {words('Real only', 3)}; {words('Fake only', 4)}; "
        f"{words('Discriminator only', 5)}; {words('Baseline', 0)}.",
        f"DAT in G's step, eps / 64: {words('Baseline', 0)}; {words('Generator only, pass', 1)}.",
        f"DAT in G's step, eps / 64: {words('Discriminator only', 5)}; {words('All, pass', 6)}.",
        f"DAT in D's step, eps unscaled: {words('Real only', 9)}; {words('Fake only', 10)}; "
        f"{words('Discriminator only', 11)}; {words('Baseline', 0)}.",
        f"DAT in G's step, eps unscaled: {words('Baseline', 0)}; {words('Generator only, pass', 8)}.",
        f"DAT in G's step, eps unscaled: {words('Discriminator only', 11)}; "
        "All, pass (9.0 / 9.0 modes, quality 0.20 / 0.28, KL 0.10 / 0.10).",
    )
    unscaled = outcome.tables[1]
    assert [row.label for row in unscaled.rows] == [row.label for row in outcome.tables[0].rows]
    assert unscaled.rows[0].cells["modes, balanced"] == Runs((0.0,))  # Baseline, for which eps is nothing


def test_second_order_in_g_equals_pass_on_points() -> None:
    """Why the table has no such rows: G's gradient through the change is zero where D is piecewise linear."""
    wirings = ("pass", "second_order")
    found = [expected(quick_study.DAT, Recipe(dat_generator=wiring)) for wiring in wirings]
    assert found[0] == found[1] != expected(quick_study.DAT, Recipe())


# --- Fig. 5 ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_fig5_on_points(tmp_path: Path) -> None:
    part = fig5_points.run_points(Options(**TINY), tmp_path)
    rows = {row.label: dict(row.cells) for row in part.table.rows}
    assert list(rows) == ["0-GP real 10", "0-GP both 0.1", "DAT", "DAT + 0-GP both 0.1"]
    assert rows["DAT"] == expected(quick_study.DAT, Recipe(loss="wgan"))
    assert len(part.findings) == 4
    assert [axes.get_title() for axes in part.figure.axes[:2]] == ["real", "0-GP real 10"]
    assert len(part.origin.commits) == len(part.origin.machines) == 1
    assert not torch.equal(
        *(torch.tensor(rows[name]["KL, balanced"].values) for name in ("DAT", "0-GP both 0.1"))
    )
