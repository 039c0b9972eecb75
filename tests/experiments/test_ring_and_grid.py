"""The evidence on points: which arms are trained on ring and grid, and what the page says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.data.mixture import GRID, RING
from fastdat.experiments import outcome_files
from fastdat.experiments.catalogue import Options
from fastdat.experiments.evidence import ring_and_grid
from fastdat.experiments.outcome import Runs
from fastdat.regularizers.gradient_penalty import LP, R1, R2
from tests.experiments.made_results import made_result
from tests.experiments.point_runs import TINY, cells


def test_the_full_length() -> None:
    study = ring_and_grid.study(Options(quick=False))
    assert (study.mixtures, study.seeds, study.iterations) == ((RING, GRID), 8, 10_000)
    assert ring_and_grid.study(Options(quick=False, seeds=3)).seeds == 3
    assert list(study.arms) == ["no attack", "DAT", "second-order DAT", "R1 + R2", "DAT + R1 + R2", "LP"]
    assert study.regularizers == {
        "R1 + R2": (R1(0.2), R2(0.2)),
        "DAT + R1 + R2": (R1(0.2), R2(0.2)),
        "LP": (LP(10.0),),
    }
    attacks = {name: (attack.attacks, attack.second_order) for name, attack in study.arms.items()}
    assert attacks == {
        "no attack": (False, False),
        "DAT": (True, False),
        "second-order DAT": (True, True),
        "R1 + R2": (False, False),
        "DAT + R1 + R2": (True, False),
        "LP": (False, False),
    }
    assert all(attack.bounds is None for attack in study.arms.values())


def test_what_the_page_says() -> None:
    """Two seeds with 0.01 between them: a mean has the standard error 0.005, a difference 0.00707."""
    options = Options(quick=False, seeds=2, only=("no attack", "DAT", "LP"))
    study = ring_and_grid.study(options)
    numbers = {
        "no attack": ((8.0, 0.75, 0.25), (20.0, 0.5, 0.5)),
        "DAT": ((7.0, 0.875, 0.125), (20.0, 0.5, 0.515)),
        "LP": ((8.0, 0.75, 0.375), (24.0, 0.25, 0.0625)),
    }
    outcome = ring_and_grid.outcome(made_result(study, numbers), options)
    values = cells(outcome)
    assert values["DAT"]["KL, ring"] == Runs((0.125, 0.135))
    assert values["LP"]["modes, grid"] == Runs((24.0, 24.01))
    errors = cells(outcome, 1)
    assert list(errors) == ["DAT", "LP"]
    assert errors["DAT"]["KL, ring"] == pytest.approx(-0.125 / 0.01 * 2**0.5)
    assert errors["DAT"]["quality, ring"] == pytest.approx(0.125 / 0.01 * 2**0.5)
    assert errors["LP"]["modes, grid"] == pytest.approx(4 / 0.01 * 2**0.5)
    ring, grid, *arms = outcome.findings
    assert ring == (
        "On the ring of 8, KL 0.26 with 'no attack'. In standard errors of the difference: lower: DAT 0.13 (-17.7); "
        "higher: LP 0.38 (+17.7)."
    )
    assert grid == (
        "On the grid of 25, KL 0.51 with 'no attack'. In standard errors of the difference: lower: LP 0.07 (-61.9); "
        "not told apart: DAT 0.52 (+2.1)."
    )
    assert arms[1].startswith("DAT: 7.0 / 20.0 modes, quality 0.88 / 0.5")
    assert not outcome.quick
    assert outcome.title == "Evidence on points: a ring of 8 and a grid of 25 Gaussians"
    assert outcome.command.startswith("fastdat reproduce evidence-points --full ")
    assert "eight Gaussians on the unit circle, standard deviation 0.05" in outcome.protocol[0]
    assert "found of 8 / 25, with over 0.2" in outcome.protocol[1]


def test_nothing_is_compared_without_the_base() -> None:
    options = Options(quick=False, seeds=2, only=("DAT",))
    study = ring_and_grid.study(options)
    outcome = ring_and_grid.outcome(
        made_result(study, {"DAT": ((8.0, 0.5, 0.25), (20.0, 0.5, 0.5))}), options
    )
    assert len(outcome.tables) == 1
    assert [finding.split(":")[0] for finding in outcome.findings] == ["DAT"]


@pytest.mark.usefixtures("short")
def test_from_training_to_the_page(tmp_path: Path) -> None:
    outcome = ring_and_grid.run(Options(only=("no attack", "DAT + R1 + R2"), **TINY), tmp_path)
    found = cells(outcome)
    assert list(found) == ["no attack", "DAT + R1 + R2"]
    assert found["no attack"] != found["DAT + R1 + R2"]
    assert set(outcome.config["mixtures"]) == {"ring", "grid"}
    assert outcome.config["mixtures"]["ring"]["std"] == 0.05
    assert len(outcome.config["mixtures"]["grid"]["means"]) == 25
    circles = [len(axes.patches) for axes in outcome.figures[""].axes if axes.get_visible()]
    assert circles == [8, 8, 8, 25, 25, 25]
    outcome_files.write(outcome, tmp_path)
    assert (tmp_path / "evidence-points.md").exists()
