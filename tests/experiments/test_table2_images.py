"""Table II: which runs it has, where each score stands, and what is said about the paper's numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fastdat.experiments.images import table2_images
from fastdat.experiments.images.table2_findings import findings, notes
from fastdat.experiments.outcome import Column, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import TABLE_I
from tests.experiments.image_runs import OPTIONS, ended, score

FULL = table2_images.Options(quick=False, compile=False)


def test_the_full_length_runs_are_table_i() -> None:
    arms = table2_images.full_arms()
    assert len(arms) == 30
    for arm in arms:
        model, _, dataset = arm.name.replace("-dat", "").partition("-")
        row, config = TABLE_I[dataset], arm.config
        assert (config.model, config.dataset, config.dat.attacks) == (model, dataset, "-dat" in arm.name)
        assert (config.resolution, config.batch_size, config.lr) == (row.resolution, row.batch_size, row.lr)
        assert (config.betas, config.lr_decay, config.n_dis) == (row.betas, row.lr_decay, row.n_dis)
        assert (config.steps, config.loss, config.ngf, config.ndf) == (row.steps, "hinge", None, None)
        scored = config.eval
        assert (scored.extractor, scored.fakes, scored.reals) == ("inception-v3-compat", 50_000, 50_000)
        assert (scored.splits, scored.metrics[0], scored.is_splits) == (("train",), "fid", 10)
        assert ("is" in scored.metrics) == (dataset != "lsun-bedroom")
    # Runs on one data set follow each other, so that it is read once.
    datasets = [arm.config.dataset for arm in arms]
    assert sum(a != b for a, b in pairwise(datasets)) == 4


def test_scores_stand_in_the_papers_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train_all(arms: Any, seeds: int, *args: Any, also: tuple[str, ...]) -> Any:
        assert also == ("test",), "they are looked for before the training"
        made = {}
        for arm in arms:
            lines = [
                score(90_000, fid=20.5, kid=0.02, **{"is": 7.5}),
                score(100_000, fid=21.5, kid=0.01, **{"is": 8.5}),
            ]
            lines += [score(90_000, "test", fid=24.0, kid=0.03), score(100_000, "test", fid=25.0, kid=0.04)]
            if "dat" in arm.name:
                lines[0]["scores"]["fid"] = 18.25
            made[arm.name] = (ended(arm.name, lines, config=arm.config),)
        return made

    monkeypatch.setattr(table2_images, "train_all", train_all)
    monkeypatch.setattr(table2_images, "with_test_scores", lambda runs, options: runs)
    only = ("sngan-cifar10", "sngan-dat-cifar10")
    wanted = table2_images.Options(quick=False, compile=False, only=only)
    outcome = table2_images.run(wanted, tmp_path)
    tables = {table.title: table for table in outcome.tables}
    assert len(tables) == 10
    best, last = " at the step of the best train FID", " at the last step"
    expected = {
        "Train FID": {best: (20.5, 18.25), last: (21.5, 21.5)},
        "Train KID": {best: (0.02, 0.02), last: (0.01, 0.01)},
        "Test FID": {best: (24.0, 24.0), last: (25.0, 25.0)},
        "Test KID": {best: (0.03, 0.03), last: (0.04, 0.04)},
        "IS": {best: (7.5, 7.5), last: (8.5, 8.5)},
    }
    for head, by_step in expected.items():
        for when, (plain, dat) in by_step.items():
            table = tables[f"{head} (inception-v3-compat){when}"]
            assert table.comparable
            assert [column.name for column in table.columns] == [
                column.name for column in table.paper_columns
            ]
            row = {row.label: row for row in table.rows}["CIFAR-10"]
            assert row.cells["SNGAN"] == Runs((plain,))
            assert row.cells["SNGAN-DAT"] == Runs((dat,))
            assert row.cells["SSGAN"] is None
            assert table.rows[0].label == "LSUN-Bedroom"
    assert tables["Train FID (inception-v3-compat) at the last step"].rows[-1].paper["SNGAN-DAT"] == 17.93
    assert tables["Test KID (inception-v3-compat) at the last step"].rows[0].paper["InfoMaxGAN"] == 0.0388
    assert tables["IS (inception-v3-compat) at the last step"].rows[0].paper == {}
    assert any(
        "Train FID (inception-v3-compat) at the step of the best train FID: DAT is better in 1 of 1" in f
        for f in outcome.findings
    )


def test_quick_compares_means_over_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kids = {"DCGAN": (0.5, 0.7, 0.9), "DCGAN-DAT": (0.2, 0.4, 0.3)}

    def train_all(arms: Any, seeds: int, *args: Any) -> Any:
        assert seeds == 3
        return {
            arm.name: tuple(
                ended(arm.name, [score(1_000, kid=kids[arm.name][seed])], seed, config=arm.config)
                for seed in range(3)
            )
            for arm in arms
        }

    monkeypatch.setattr(table2_images, "train_all", train_all)
    outcome = table2_images.run(OPTIONS, tmp_path)
    (table,) = outcome.tables
    assert not table.comparable
    assert table.rows[0].cells == {side: Runs(values) for side, values in kids.items()}
    assert table.rows[0].paper["SNGAN"] == 0.0149
    assert "efficientnet-lite0" in table.title
    assert "scaled down" in outcome.title
    assert outcome.findings[0].startswith(
        "train KID (efficientnet-lite0): 0.300 ± 0.100 (3 runs) with DCGAN-DAT, 57% lower than 0.700 ± 0.200 (3 runs)"
    )
    arms = table2_images.quick_arms()
    assert [(arm.config.steps, arm.config.ngf, arm.config.dat.attacks) for arm in arms] == [
        (1_000, 16, False),
        (1_000, 16, True),
    ]


def test_findings_know_that_a_greater_is_is_better() -> None:
    means = {"SNGAN": 7.0, "SNGAN-DAT": 8.0, "SSGAN": 8.0, "SSGAN-DAT": 7.0}
    row = Row("CIFAR-10", {name: Runs((mean,)) for name, mean in means.items()})
    columns = (Column("SNGAN", 2),)
    texts = list(findings([ResultTable(head, "", columns, (row,)) for head in ("IS", "Train FID")]))
    assert texts == [
        "IS: DAT is better in 1 of 2 pairs; not in SSGAN on CIFAR-10.",
        "Train FID: DAT is better in 1 of 2 pairs; not in SNGAN on CIFAR-10.",
    ]


def test_means_that_print_alike_are_equal() -> None:
    means = {"SNGAN": 7.124, "SNGAN-DAT": 7.121, "SSGAN": 8.0, "SSGAN-DAT": 7.0}
    row = Row("CIFAR-10", {name: Runs((mean,)) for name, mean in means.items()})
    said = list(findings([ResultTable("KID", "", (Column("SNGAN", digits),), (row,)) for digits in (2, 3)]))
    assert said == [
        "KID: DAT is better in 1 of 2 pairs; equal in SNGAN on CIFAR-10.",
        "KID: DAT is better in 2 of 2 pairs.",
    ]


def test_the_papers_own_exceptions_and_its_test_fid_of_lsun() -> None:
    consistent, lsun, step = notes()
    # Sec. V's Table IV repeats two columns of Table II, all five scores of each, and says that it shows the best step.
    assert step.startswith(
        "Table II names no step and no number of runs. Table IV, which has the best FID of each run"
    )
    assert (
        "same scores in Baseline and Discriminator only as Table II in SNGAN and SNGAN-DAT on CIFAR-10"
        in step
    )
    assert "2 exceptions" in consistent
    assert "SNGAN's train KID on CIFAR-100, 0.0158 without and 0.016 with DAT" in consistent
    assert "InfoMaxGAN's test KID on CIFAR-10, 0.0139 without and 0.0141 with DAT" in consistent
    assert "82 to 87 beside a train FID of 20 to 36" in lsun
    assert "expect train FID plus about 5" in lsun
