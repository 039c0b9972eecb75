"""The paper's numbers: against its text where there is a copy, and against each other."""

from __future__ import annotations

import re

import pytest

from fastdat.experiments.paper_tables import (
    FIG3_IMBALANCED,
    FIG4_FAILING_LRS,
    FIG6_EPS,
    FIG7_STEPS,
    FIG9_STEPS_WITHOUT_DAT,
    IMPROVEMENTS,
    TABLE_I,
    TABLE_III,
    TABLE_III_ARMS,
    TABLE_IV,
    TABLE_IV_SCORES,
    Improvement,
)
from fastdat.report.table2 import COLUMNS, SCORES
from tests.environment import REPOSITORY

PAPER = REPOSITORY.parent / "shared" / "paper" / "dat-paper.txt"
needs_paper = pytest.mark.skipif(not PAPER.is_file(), reason=f"no paper here: {PAPER}")


@pytest.fixture(scope="module")
def paper() -> list[str]:
    return PAPER.read_text(encoding="utf-8").splitlines()


def rows(paper: list[str], table: str, head: int, count: int) -> list[list[str]]:
    """Cells of the ``count`` rows of a table whose first row stands ``head`` lines below its title."""
    first = next(i for i, line in enumerate(paper) if line.startswith(f"TABLE {table}:"))
    return [line.split("\t") for line in paper[first + head : first + head + count]]


def number(cell: str) -> float:
    return float(re.sub("</?b>", "", cell))


# --- against the paper's text -----------------------------------------------------------------------------------------


@needs_paper
def test_table_1(paper: list[str]) -> None:
    printed = rows(paper, "I", 3, 5)
    for cells, row in zip(printed, TABLE_I.values(), strict=True):
        name, resolution, batch, lr, beta1, beta2, decay, n_dis, steps = cells
        assert (name, resolution) == (row.dataset, f"{row.resolution} x {row.resolution}")
        assert (float(lr), (float(beta1), float(beta2))) == (row.lr, row.betas)
        assert (int(batch), decay.lower()) == (row.batch_size, row.lr_decay)
        assert (int(n_dis), steps) == (row.n_dis, f"{row.steps // 1000}K")


@needs_paper
def test_table_3(paper: list[str]) -> None:
    head, *body = rows(paper, "III", 3, 4)
    assert [re.sub(r"[\[(].*", "", cell) for cell in head[1:]] == list(TABLE_III_ARMS.values())
    for cells, (loss, row) in zip(body, TABLE_III.items(), strict=True):
        assert re.sub(r"\[.*", "", cells[0]).lower() == loss
        assert [number(cell) for cell in cells[1:]] == list(row.values())
        assert [arm for arm, cell in zip(row, cells[1:], strict=True) if "<b>" in cell] == [
            min(row, key=row.__getitem__)
        ]


@needs_paper
def test_table_4(paper: list[str]) -> None:
    head, *body = rows(paper, "IV", 3, 7)
    assert [
        cell.replace("_", " ").replace("Train", "train").replace("Test", "test") for cell in head[4:]
    ] == [*TABLE_IV_SCORES]
    for cells, row in zip(body, TABLE_IV.values(), strict=True):
        assert f"({row.name})" in cells[0]
        assert [bool(cell) for cell in cells[1:4]] == [row.real, row.fake, row.generator]
        assert [number(cell) for cell in cells[4:9]] == list(row.scores.values())


@needs_paper
def test_bold_is_the_best_of_table_2(paper: list[str]) -> None:
    (metric, split), best = ("", ""), {}
    for cells in rows(paper, "II", 4, 25):
        split, metric = cells[0] or split, cells[1] or metric
        bold = [COLUMNS[i] for i, cell in enumerate(cells[3:9]) if "<b>" in cell]
        best[metric.lower(), None if split == "None" else split.lower(), cells[2]] = bold
    for part, datasets in SCORES.items():
        for dataset, row in datasets.items():
            (bold,) = best[(*part, TABLE_I[dataset].dataset)]
            assert bold == COLUMNS[row.index(max(row) if part[0] == "is" else min(row))]


@needs_paper
def test_numbers_of_the_text(paper: list[str]) -> None:
    text = "\n".join(paper)
    for improvement in IMPROVEMENTS:
        percents = list(improvement.percent.values())
        if improvement.where == "Abstract":
            found = re.findall(r"(\d+\.\d)% FID on", text)
        else:
            model = improvement.model
            found = re.findall(
                r"\d+\.\d", text.split(f"compared to {model}, the improvement")[1].split("from")[0]
            )
        assert [float(percent) for percent in found] == percents
    assert f"without DAT through PGD are {' and '.join(map(str, FIG9_STEPS_WITHOUT_DAT.values()))}" in text
    assert f"{{{', '.join(f'{eps:g}' for eps in FIG6_EPS)}\\}}" in text
    assert f"{{{', '.join(map(str, FIG7_STEPS))}}}" in text
    assert ", ".join(map(str, FIG3_IMBALANCED)) in text
    rates = [f"{lr:.0e}".replace("e-0", "e-") for lr in FIG4_FAILING_LRS]
    assert f"({rates[0]}, {rates[1]}, and {rates[2]})" in text


# --- against each other ----------------------------------------------------------------------------------------------


def score(metric: str, split: str | None, dataset: str, column: str) -> float:
    return SCORES[metric, split][dataset][COLUMNS.index(column)]


@pytest.mark.parametrize("improvement", IMPROVEMENTS, ids=lambda i: f"{i.where} {i.model}")
def test_the_texts_percentages_are_those_of_table_2(improvement: Improvement) -> None:
    for dataset, percent in improvement.percent.items():
        before = score("fid", "train", dataset, improvement.model)
        after = score("fid", "train", dataset, f"{improvement.model}-DAT")
        assert 100 * (1 - after / before) == pytest.approx(percent, abs=0.0501), dataset


def test_dat_is_consistently_better_but_for_two_cells() -> None:
    """Sec. IV-B: "DAT improves FID, KID, and IS consistently"."""
    worse = [
        (metric, split, dataset, model)
        for (metric, split), datasets in SCORES.items()
        for dataset in datasets
        for model in ("SNGAN", "SSGAN", "InfoMaxGAN")
        if (score(metric, split, dataset, f"{model}-DAT") - score(metric, split, dataset, model))
        * (-1 if metric == "is" else 1)
        >= 0
    ]
    assert worse == [
        ("kid", "train", "cifar100", "SNGAN"),
        ("kid", "test", "cifar10", "InfoMaxGAN"),
    ]


def test_lead_of_dat_in_table_3() -> None:
    """Over the best method that is not the paper's."""
    own = ("none", "dat", "datt")
    rivals = {loss: min(v for arm, v in row.items() if arm not in own) for loss, row in TABLE_III.items()}
    leads = {loss: round(rivals[loss] - row["dat"], 2) for loss, row in TABLE_III.items()}
    assert leads == {"gan": 0.26, "lsgan": 0.02, "wgan": 0.31}


def test_table_4_repeats_table_2() -> None:
    parts = dict(
        zip(
            TABLE_IV_SCORES,
            [("is", None), ("fid", "train"), ("fid", "test"), ("kid", "train"), ("kid", "test")],
            strict=True,
        )
    )
    for name, column in (("Baseline", "SNGAN"), ("Discriminator only", "SNGAN-DAT")):
        row = TABLE_IV[name]
        assert (row.real, row.fake, row.generator) == (
            (False,) * 3 if column == "SNGAN" else (True, True, False)
        )
        for key, part in parts.items():
            assert row.scores[key] == score(*part, "cifar10", column)


def test_some_cells_typed_by_hand() -> None:
    """For machines without a copy of the paper."""
    assert TABLE_III["wgan"]["0gp"] == 43.06
    assert TABLE_III["lsgan"]["rfm"] == 26.05
    assert TABLE_IV["Generator only"].scores["train FID"] == 309
    assert (TABLE_IV["Fake only"].fake, TABLE_IV["Fake only"].real) == (True, False)
    assert TABLE_I["tiny-imagenet"].lr_decay == "none"
