"""Fig. 4: which settings are trained, and that each score stands at its own setting and side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fastdat.experiments.images import fig4, radar
from fastdat.experiments.outcome import Runs
from tests.experiments.image_runs import OPTIONS, ended, score


def test_the_full_length_runs_are_the_figures() -> None:
    arms = {arm.name: arm.config for arm in fig4.arms_of(fig4.LEFT + fig4.RIGHT, quick=False)}
    assert len(arms) == (6 + 5 - 1) * 2  # (LR 2e-4, betas (0.5, 0.999)) is in both parts
    assert {c.lr for c in arms.values() if c.betas == (0.5, 0.999)} == {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3}
    assert {c.betas for c in arms.values() if c.lr == 2e-4} == {
        (0.0, 0.9),
        (0.0, 0.999),
        (0.5, 0.9),
        (0.5, 0.999),
        (0.9, 0.999),
    }
    for name, config in arms.items():
        assert name == f"LR {config.lr:.0e}, ".replace("e-0", "e-") + (
            f"betas {config.betas}, DCGAN{'-DAT' * config.dat.attacks}"
        )
        assert (config.model, config.dataset, config.steps, config.n_dis) == ("dcgan", "cifar10", 100_000, 1)
        assert (config.ngf, config.eval.metrics, config.eval.splits) == (None, ("fid",), ("train",))
        assert (config.eval.extractor, config.eval.fakes, config.eval.reals) == (
            "inception-v3-compat",
            50_000,
            50_000,
        )


def test_quick_runs_are_thin() -> None:
    arms = fig4.arms_of([fig4.Setting(lr, (0.5, 0.999)) for lr in fig4.QUICK_LRS], quick=True)
    assert [arm.config.lr for arm in arms] == [2e-4, 2e-4, 1e-3, 1e-3, 5e-3, 5e-3]
    for arm in arms:
        assert (arm.config.ngf, arm.config.ndf, arm.config.steps) == (16, 16, 1_200)
        assert arm.config.eval.extractor == "efficientnet-lite0"


def given(monkeypatch: pytest.MonkeyPatch, kids: dict[str, float | None]) -> None:
    """Let the experiment find runs with these KIDs, None for a run that diverged, instead of training."""

    def found(arms: Any, seeds: int, *args: Any) -> Any:
        return {
            arm.name: (
                ended(arm.name, [], diverged=True)
                if kids[arm.name] is None
                else ended(arm.name, [score(1_200, kid=kids[arm.name])], config=arm.config),
            )
            for arm in arms
        }

    monkeypatch.setattr(fig4, "train_all", found)


def test_scores_stand_at_their_setting_and_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    betas = "betas (0.5, 0.999)"
    given(
        monkeypatch,
        {
            f"LR 2e-4, {betas}, DCGAN": 0.5,
            f"LR 2e-4, {betas}, DCGAN-DAT": 0.25,
            f"LR 1e-3, {betas}, DCGAN": 1.5,
            f"LR 1e-3, {betas}, DCGAN-DAT": 0.375,
            f"LR 5e-3, {betas}, DCGAN": None,
            f"LR 5e-3, {betas}, DCGAN-DAT": 2.0,
        },
    )
    outcome = fig4.run(OPTIONS, tmp_path)
    table, diverged = outcome.tables
    cells = [(row.label, *row.cells.values()) for row in table.rows]
    assert cells == [
        ("2e-4", Runs((0.5,)), Runs((0.25,))),
        ("1e-3", Runs((1.5,)), Runs((0.375,))),
        ("5e-3", "diverged", Runs((2.0,))),
    ]
    assert [column.name for column in table.columns] == [
        "DCGAN: train KID (efficientnet-lite0)",
        "DCGAN-DAT: train KID (efficientnet-lite0)",
    ]
    assert not table.comparable
    assert [row.label for row in diverged.rows] == [f"LR 5e-3, {betas}, DCGAN"]
    text = " ".join(outcome.findings)
    assert outcome.findings[0] == "The KID is lower with DAT at 3 of 3 settings of the learning rate."
    assert f"LR 2e-4, {betas}: KID: 0.250 with DCGAN-DAT, 50% lower than 0.500 with DCGAN" in text
    assert f"LR 5e-3, {betas}: KID: 2.00 with DCGAN-DAT, diverged with DCGAN." in text
    assert (
        "At LR 1e-3 the KID: that of DCGAN is 3.0 times that at 2e-4, that of DCGAN-DAT is 1.5 times" in text
    )
    assert "At LR 5e-3 the KID: that of DCGAN-DAT is 8.0 times that at 2e-4." in text
    assert outcome.title.endswith("scaled down: a thin DCGAN, three learning rates")


def test_only_one_side_can_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kids: dict[str, float | None] = {
        f"LR {lr}, betas (0.5, 0.999), DCGAN-DAT": 1.0 for lr in ("2e-4", "1e-3", "5e-3")
    }
    given(monkeypatch, kids)
    outcome = fig4.run(fig4.Options(compile=False, only=("DCGAN-DAT",)), tmp_path)
    assert [list(row.cells.values()) for row in outcome.tables[0].rows] == [[None, Runs((1.0,))]] * 3


def test_a_radar_draws_smaller_values_nearer_to_the_origin_and_missing_ones_on_the_rim() -> None:
    axes = Figure().add_subplot(projection="polar")
    radar.draw_radar(
        axes, ["p", "q", "r"], {"one": [1.0, 2.0, 4.0], "two": [3.0, None, 0.5]}, ("#112233", "#445566")
    )
    one, no_cross, two, cross = axes.get_lines()
    third = 2.0943951
    assert one.get_xdata() == pytest.approx([0.0, third, 2 * third, 0.0])
    assert list(one.get_ydata()) == [1.0, 2.0, 4.0, 1.0]
    assert list(two.get_ydata()) == [3.0, pytest.approx(4.32), 0.5, 3.0]
    assert len(no_cross.get_xdata()) == 0
    assert cross.get_xdata() == pytest.approx([third])
    assert axes.get_ylim() == (0.0, pytest.approx(4.32))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["p", "q", "r"]
