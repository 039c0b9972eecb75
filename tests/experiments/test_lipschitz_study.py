"""The steepness of D while it trains: what is trained and measured, and that each number stands at its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastdat.experiments.images import lipschitz_study
from fastdat.experiments.outcome import Runs
from tests.experiments.image_runs import OPTIONS, images
from tests.experiments.monitored_runs import ended, given, on_noise, shorten, written


def test_the_arms() -> None:
    arms = {arm.name: arm.config for arm in lipschitz_study.arms_of(quick=False)}
    assert [term.name for term in arms["DCGAN, 0-GP"].regularizers] == ["0gp"]
    assert arms["DCGAN, second-order DAT"].dat.second_order
    assert not arms["DCGAN, DAT"].dat.second_order
    assert all(
        (c.monitor.every, c.monitor.latent, c.monitor.pgd) == (100, False, False) for c in arms.values()
    )
    assert arms["DCGAN, DAT, sign per sample"].dat.reduction == "sample"
    assert [name for name in arms if arms[name].dat.reduction == "sample"] == ["DCGAN, DAT, sign per sample"]
    assert [arm.name for arm in lipschitz_study.arms_of(quick=True)] == list(arms)[:4]
    for quick in lipschitz_study.arms_of(quick=True):
        assert (quick.config.ngf, quick.config.monitor.samples, quick.config.steps) == (16, 128, 600)


def steep_lines(scale: float, fraction: float | None) -> list[dict[str, Any]]:
    lines = []
    for step, more in ((100, 1.0), (200, 3.0)):
        numbers = {
            f"lipschitz_{p}_{w}": scale * more * (1 + i + 10 * j)
            for i, p in enumerate(("real", "fake", "between"))
            for j, w in enumerate(("mean", "q95", "max"))
        }
        numbers |= {"sigma_max": scale * 5, "sigma_mean": scale * 2}
        # Real and fake apart, and neither as the share of the attack.
        numbers |= {"penalty_case_real": scale * more / 10, "penalty_case_fake": scale * more / 5}
        lowered = {} if fraction is None else {"penalty_fraction": fraction * more}
        lines += [
            {"step": step - 50, "seconds": 1.0, **lowered},
            {"step": step, "seconds": 2.0, **numbers, **lowered},
        ]
    return lines


def close(*values: float) -> Any:
    """Runs of nearly these values."""

    class Close:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Runs) and other.values == pytest.approx(values)

    return Close()


def test_steepness_stands_at_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(
        monkeypatch,
        lipschitz_study,
        {
            "DCGAN, no attack": [ended("a", steep_lines(1.0, None))],
            "DCGAN, 0-GP": [ended("b", steep_lines(0.5, None))],
            "DCGAN, DAT": [ended("c", steep_lines(0.25, 0.25)), ended("c", steep_lines(0.75, 0.125), 1)],
            "DCGAN, second-order DAT": [ended("d", steep_lines(2.0, 0.0625), diverged=True)],
        },
    )
    outcome = lipschitz_study.run(OPTIONS, tmp_path)
    end, over, diverged = outcome.tables
    cells = {row.label: row.cells for row in end.rows}
    dat = cells["DCGAN, DAT"]
    assert dat["reals, mean"] == Runs((0.75, 2.25))
    assert dat["fakes, 95 %"] == Runs((0.75 * 12, 2.25 * 12))
    assert dat["between, greatest"] == Runs((0.75 * 23, 2.25 * 23))
    assert (dat["sigma, greatest"], dat["sigma, mean"]) == (Runs((1.25, 3.75)), Runs((0.5, 1.5)))
    assert cells["DCGAN, second-order DAT"]["reals, mean"] is None, "it has no last step"
    means = {row.label: row.cells for row in over.rows}
    assert means["DCGAN, DAT"]["fakes, mean"] == Runs((1.0, 3.0))
    dat = means["DCGAN, DAT"]  # scales 0.25 and 0.75, times 1 and 3
    assert dat["reals in the penalty case, %"] == close(5.0, 15.0)
    assert dat["fakes in the penalty case, %"] == close(10.0, 30.0)
    assert dat["fakes in the penalty case, least, %"] == close(5.0, 15.0)
    assert dat["reals in the penalty case, least, %"] == close(2.5, 7.5)
    assert dat["objective lowered by the attack, %"] == Runs((50.0, 25.0))
    assert means["DCGAN, no attack"]["objective lowered by the attack, %"] is None
    assert means["DCGAN, no attack"]["fakes in the penalty case, %"] == close(40.0), "any D can be asked"
    assert set(means["DCGAN, second-order DAT"].values()) == {None}, "NaN has ended it"
    assert [row.label for row in diverged.rows] == ["DCGAN, second-order DAT"]
    assert len(outcome.findings) == 4, "three places and the penalty case"
    assert outcome.findings[0] == (
        "DCGAN, mean input gradient, reals, last step: 3.00 with no attack; 1.50 with 0-GP (50% lower); 1.50 ± 1.06 (2 "
        "runs) with DAT (50% lower)."
    )
    assert outcome.findings[-1] == (
        "DCGAN, samples in the penalty case, mean over the training: no attack 20.0 % of the reals and 40.0 % of the "
        "fakes; 0-GP 10.0 % of the reals and 20.0 % of the fakes; DAT 10.0 ± 7.1 (2 runs) % of the reals and 20.0 ± "
        "14.1 (2 runs) % of the fakes. It is most of the reals and most of the fakes in 0 of 3 arms."
    )
    axes = outcome.figures[""].axes
    curve = axes[1].get_lines()[2]
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([100, 200], [1.0, 3.0])  # type: ignore[arg-type]
    assert [len(panel.get_lines()) for panel in axes] == [3] * 6, "three arms have not diverged"
    assert "scaled down: a thin DCGAN" in written(outcome, tmp_path)


def test_the_record_keeps_few_points_of_each_curve_and_the_last_one() -> None:
    points = [[step, 0.5] for step in range(100, 100_100, 100)]
    kept = lipschitz_study._thinned(points)
    assert len(kept) == 200
    assert (kept[0], kept[-1]) == ([500, 0.5], [100_000, 0.5])
    assert lipschitz_study._thinned(points[:7]) == points[:7]
    assert lipschitz_study._thinned([]) == []


def test_the_monitor_of_the_study_is_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shorten(monkeypatch, lipschitz_study)
    on_noise(monkeypatch, lipschitz_study, images())
    monkeypatch.setattr(lipschitz_study, "EVERY", 2)
    monkeypatch.setattr(lipschitz_study, "QUICK_SAMPLES", 5)
    outcome = lipschitz_study.run(replace(OPTIONS, only=("DCGAN, DAT",), seeds=1), tmp_path)
    (row,) = outcome.tables[0].rows
    assert all(isinstance(cell, Runs) for cell in row.cells.values())
    assert all(isinstance(cell, Runs) for cell in outcome.tables[1].rows[0].cells.values())
    assert [step for step, _ in outcome.details["curves"]["DCGAN, DAT"][0]["sigma_max"]] == [2, 4]


def test_every_arm_has_a_line_of_its_own() -> None:
    found = {
        arm.name: [ended(arm.name, steep_lines(1.0, None))] for arm in lipschitz_study.arms_of(quick=False)
    }
    assert len(found) == 7
    for axes in lipschitz_study.draw(found).axes:
        assert [line.get_label() for line in axes.lines] == list(found)
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 7
