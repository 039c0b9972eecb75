"""Tables III and IV and Figs. 6 and 7 in full length: the paper's runs, and each score in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import sngan_sweeps, table3_images, table4_images
from fastdat.experiments.images.image_study import Arm
from fastdat.experiments.outcome import Runs
from fastdat.training import TrainConfig
from fastdat.training.table3_config import LOSSES
from tests.experiments.image_runs import OPTIONS, ended, score

FULL = Options(quick=False, compile=False)


def is_full_sngan(config: TrainConfig) -> bool:
    """SNGAN on CIFAR-10 with the settings of Table I."""
    return (
        (config.model, config.dataset, config.loss, config.ngf, config.ndf)
        == ("sngan", "cifar10", "hinge", None, None)
        and (config.steps, config.batch_size, config.n_dis, config.lr) == (100_000, 64, 5, 2e-4)
        and (config.betas, config.lr_decay) == ((0.0, 0.9), "linear")
        and (config.eval.extractor, config.eval.fakes) == ("inception-v3-compat", 50_000)
    )


def given(module: Any, monkeypatch: pytest.MonkeyPatch, fids: dict[str, tuple[float, ...]]) -> list[int]:
    """Let ``module`` find runs with these last FIDs, after an FID of 1 less at an earlier step; their seeds counts."""
    counts = []

    def train_all(arms: Any, seeds: int, *args: Any, also: tuple[str, ...] = ()) -> Any:
        counts.append(seeds)
        assert also == (("test",) if module is table4_images else ())
        return {
            arm.name: tuple(
                ended(arm.name, _scores(fid), seed, config=arm.config)
                for seed, fid in enumerate(fids[arm.name])
            )
            for arm in arms
            if arm.name in fids
        }

    monkeypatch.setattr(module, "train_all", train_all)
    return counts


def _scores(fid: float) -> list[dict[str, Any]]:
    early = {"fid": fid - 1, "kid": 0.5, "is": 6.0}
    tests = [score(90_000, "test", fid=fid + 4, kid=0.75), score(100_000, "test", fid=fid + 5, kid=0.8)]
    return [score(90_000, **early), score(100_000, fid=fid, kid=0.25), *tests]


# --- Figs. 6 and 7 ---------------------------------------------------------------------------------------------------


def test_fig6_and_fig7_train_what_the_paper_lists() -> None:
    fig6 = sngan_sweeps.arms_of(sngan_sweeps.FIG6)
    assert [arm.config.dat.eps for arm in fig6] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 2.0, 3.0]
    assert {arm.config.dat.steps for arm in fig6} == {1}
    fig7 = sngan_sweeps.arms_of([s for part in sngan_sweeps.FIG7.values() for s in part])
    assert [(arm.config.dat.eps, arm.config.dat.steps) for arm in fig7] == [
        (eps, k) for eps in (0.6, 1.0) for k in (1, 2, 3, 4, 5)
    ]
    for arm in (*fig6, *fig7):
        assert is_full_sngan(arm.config)
        assert arm.config.dat.attacks


def test_fig6_shows_both_runs_of_each_eps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fids = {s.arm: (20.0 + i, 22.0 + i) for i, s in enumerate(sngan_sweeps.FIG6)}
    fids["eps 0.8, K 1"] = (15.0, 16.0)
    counts = given(sngan_sweeps, monkeypatch, fids)
    outcome = sngan_sweeps.run_fig6(FULL, tmp_path)
    assert counts == [2]
    (table,) = outcome.tables
    by_label = {row.label: row.cells for row in table.rows}
    assert by_label["eps 0.4, K 1"] == {
        "train FID, last step": Runs((21.0, 23.0)),
        "train FID, best step": Runs((20.0, 22.0)),
    }
    (axes,) = outcome.figures[""].axes
    curve = axes.get_lines()[0]
    assert list(curve.get_xdata())[:4] == [0.2, 0.4, 0.6, 0.8]  # type: ignore[arg-type]
    assert list(curve.get_ydata())[:4] == [21.0, 22.0, 23.0, 15.5]  # type: ignore[arg-type]
    assert outcome.findings == (
        "The best eps by the last step's train FID is eps 0.8, K 1: 15.5 ± 0.7 (2 runs); the paper's is eps 0.6. The "
        "worst is eps 3, K 1: 29.0 ± 1.4 (2 runs).",
    )
    assert (outcome.name, outcome.quick) == ("fig6", False)
    assert "last step" in outcome.protocol[1]
    assert "divided by the batch size" in outcome.protocol[1]


def test_fig7_has_a_panel_for_each_eps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = [setting for part in sngan_sweeps.FIG7.values() for setting in part]
    fids = {s.arm: (10.0 * s.eps + s.steps, 10.0 * s.eps + s.steps + 1) for s in settings}
    given(sngan_sweeps, monkeypatch, fids)
    outcome = sngan_sweeps.run_fig7(FULL, tmp_path)
    left, right = outcome.figures[""].axes
    assert (left.get_title(), right.get_title()) == ("eps = 0.6", "eps = 1")
    assert list(left.get_lines()[0].get_ydata()) == [7.5, 8.5, 9.5, 10.5, 11.5]  # type: ignore[arg-type]
    assert list(right.get_lines()[0].get_ydata()) == [11.5, 12.5, 13.5, 14.5, 15.5]  # type: ignore[arg-type]
    assert [table.title.split(" (")[0] for table in outcome.tables] == [
        "Train FID by K, eps = 0.6",
        "Train FID by K, eps = 1",
    ]
    assert "best setting by the last step's train FID is eps 0.6, K 1" in outcome.findings[0]
    assert "the paper's is eps 0.6, K 2" in outcome.findings[0]


def test_a_curve_leaves_out_what_was_not_measured() -> None:
    axes = Figure().subplots()
    sngan_sweeps.draw_curve(axes, [1, 2, 3], [Runs((4.0,)), None, Runs((5.0, 7.0))], "K")
    curve, *dots = axes.get_lines()
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([1, 3], [4.0, 6.0])  # type: ignore[arg-type]
    assert [list(line.get_ydata()) for line in dots] == [[4.0], [5.0, 7.0]]  # type: ignore[arg-type]


# --- Table III -------------------------------------------------------------------------------------------------------


def test_table3_has_all_cells_in_full_length() -> None:
    arms = table3_images.arms_of()
    assert len(arms) == 5 * 10
    for arm in arms:
        config = arm.config
        assert (config.model, config.nz, config.batch_size, config.n_dis) == ("table3", 128, 64, 1)
        assert (config.lr, config.betas, config.lr_decay, config.steps) == (
            1e-4,
            (0.5, 0.999),
            "none",
            100_000,
        )
        assert config.eval.splits == ("train",)
        assert (config.eval.fakes, config.eval.reals, config.eval.metrics) == (10_000, 50_000, ("fid",))
    by_name = {arm.name: arm.config for arm in arms}
    assert by_name["wgan-sigmoid: 0-GP"].loss == "wgan-sigmoid"
    assert [term.name for term in by_name["lsgan: GP"].regularizers] == ["gp"]
    assert by_name["gan: DATT"].dat.clean_weight == 1.0
    assert by_name["gan: DAT, second order"].dat.second_order


def test_table3_scores_stand_under_their_loss_and_method(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fids = {
        "wgan: DAT": (25.0, 26.0, 27.0),
        "wgan: GP": (30.0, 30.5, 31.0),
        "wgan-sigmoid: DAT": (20.0, 21.0, 22.0),
    }
    fids["wgan: DATT"] = (24.0, 24.0, 24.0)
    counts = given(table3_images, monkeypatch, fids)
    outcome = table3_images.run(FULL, tmp_path)
    assert counts == [3]
    last, best = outcome.tables
    rows = {row.label: row for row in last.rows}
    assert rows["wgan"].cells["DAT"] == Runs((25.0, 26.0, 27.0))
    assert rows["wgan"].cells["GP"] == Runs((30.0, 30.5, 31.0))
    assert rows["wgan-sigmoid"].cells["DAT"] == Runs((20.0, 21.0, 22.0))
    assert rows["lsgan"].cells["DAT"] is None
    assert {row.label: row for row in best.rows}["wgan"].cells["DAT"] == Runs((24.0, 25.0, 26.0))
    assert rows["wgan"].paper["0-GP"] == rows["wgan-sigmoid"].paper["0-GP"] == 43.06
    assert "DAT, second order" not in rows["wgan"].paper
    (finding,) = outcome.findings
    assert finding.startswith(
        "wgan: DATT has the lowest train FID. DAT and the best other method: 26.0 ± 1.0 (3 runs) with DAT, 15% lower "
        "than 30.5 ± 0.5 (3 runs) with GP"
    )
    assert "0.26 (GAN), 0.02 (LSGAN), 0.31 (WGAN)" in outcome.notes[2]
    said = " ".join(outcome.protocol)
    assert "0-GP has 100 in its text" in said
    assert "2/255" in said
    assert "divided by the batch size" in said
    assert "10,000 fakes" in last.title


@pytest.mark.parametrize(
    ("only", "arms"),
    [
        (("gan",), [f"gan: {head}" for head in table3_images.HEADS.values()]),
        (("wgan: DAT", "lsgan-sigmoid: GP"), ["wgan: DAT", "lsgan-sigmoid: GP"]),
        (("DATT",), [f"{loss}: DATT" for loss in LOSSES]),
    ],
)
def test_table3_takes_a_loss_or_an_arm_whole(
    only: tuple[str, ...], arms: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained: list[str] = []

    def train_all(arms: Any, *args: Any) -> Any:
        trained.extend(arm.name for arm in arms)
        return {}

    monkeypatch.setattr(table3_images, "train_all", train_all)
    table3_images.run(replace(FULL, only=only), tmp_path)
    assert sorted(trained) == sorted(arms)


# --- Table IV --------------------------------------------------------------------------------------------------------


def test_table4_has_the_papers_rows_with_position_iii_twice() -> None:
    def places(arm: Arm) -> tuple[str, bool, bool, str]:
        return arm.name, arm.config.dat.real, arm.config.dat.fake, arm.config.dat_generator

    expected = [
        ("Baseline", False, False, "none"),
        ("Generator only, pass", False, False, "pass"),
        ("Generator only, cut", False, False, "cut"),
        ("Real only", True, False, "none"),
        ("Fake only", False, True, "none"),
        ("Discriminator only", True, True, "none"),
        ("All, pass", True, True, "pass"),
        ("All, cut", True, True, "cut"),
    ]
    full, quick = table4_images.arms_of(quick=False), table4_images.arms_of(quick=True)
    assert [places(arm) for arm in full] == expected
    assert [places(arm) for arm in quick] == expected
    for arm in full:
        assert is_full_sngan(arm.config)
        assert (arm.config.dat.eps, arm.config.dat.steps) == (1.0, 1)
        assert arm.config.eval.metrics == ("fid", "kid", "is")
    assert {(arm.config.model, arm.config.steps) for arm in quick} == {("dcgan", 900)}


def test_table4_shows_the_scores_of_the_best_fid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(
        table4_images, monkeypatch, {"Baseline": (21.0,), "Discriminator only": (19.0,), "All, cut": (301.0,)}
    )
    monkeypatch.setattr(table4_images, "with_test_scores", lambda runs, options: runs)
    outcome = table4_images.run(FULL, tmp_path)
    (table,) = outcome.tables
    rows = {row.label: row for row in table.rows}
    assert rows["Discriminator only"].cells == {
        "IS": Runs((6.0,)),
        "train FID": Runs((18.0,)),
        "test FID": Runs((23.0,)),
        "train KID": Runs((0.5,)),
        "test KID": Runs((0.75,)),
    }
    assert rows["All, pass"].cells["train FID"] is None
    assert rows["All, pass"].paper == rows["All, cut"].paper
    assert rows["All, cut"].paper["test FID"] == 294
    assert [(column.name, column.digits) for column in table.columns] == [
        ("IS", 2),
        ("train FID", 2),
        ("test FID", 2),
        ("train KID", 4),
        ("test KID", 4),
    ]
    assert table.comparable
    assert outcome.findings == (
        "The lowest best train FID is that of 'Discriminator only'.",
        "best train FID: 20.0 with Baseline; 18.0 with Discriminator only (10% lower); 300 with All, cut (1400% "
        "higher). Single runs, so the spread is unknown.",
    )
    assert [run(FULL, tmp_path).name for run in (table4_images.run, table4_images.run_table4)] == [
        "table4-images",
        "table4",
    ]


def test_table4_quick_compares_last_kids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train_all(arms: Any, seeds: int, *args: Any, also: tuple[str, ...]) -> Any:
        assert not also
        kids = {arm: [score(900, kid=0.1 * (place + 1))] for place, arm in enumerate(arms)}
        return {arm.name: (ended(arm.name, lines, config=arm.config),) for arm, lines in kids.items()}

    monkeypatch.setattr(table4_images, "train_all", train_all)
    outcome = table4_images.run(OPTIONS, tmp_path)
    (table,) = outcome.tables
    (kid,) = table.columns
    assert table.rows[2].cells[kid.name] == Runs((0.1 * 3,))
    assert (table.rows[2].label, table.rows[2].paper["train FID"]) == ("Generator only, cut", 309)
    assert "efficientnet-lite0" in kid.name
    assert "scaled down" in outcome.title
    assert not table.comparable
