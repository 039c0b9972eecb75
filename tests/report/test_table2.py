"""The paper's Table II, and when a run may be compared with it."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastdat.report.runs import read_runs
from fastdat.report.score_table import score_series
from fastdat.report.table2 import PARTS, column, counted_fakes, number, objections
from tests.environment import REPOSITORY
from tests.report.runs import make_run, read_run, scored

PAPER = REPOSITORY.parent / "shared" / "paper" / "dat-paper.txt"
DATASETS = {
    "LSUN-Bedroom": "lsun-bedroom",
    "Tiny-ImageNet": "tiny-imagenet",
    "STL-10": "stl10",
    "CIFAR-100": "cifar100",
    "CIFAR-10": "cifar10",
}
MODELS = ("sngan", "sngan-dat", "ssgan", "ssgan-dat", "infomaxgan", "infomaxgan-dat")


@pytest.mark.skipif(not PAPER.is_file(), reason=f"no paper here: {PAPER}")
def test_every_cell_is_the_papers(tmp_path: Path) -> None:
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("TABLE II:"))
    cells, split, metric = {}, "", ""
    for line in lines[first + 4 : first + 29]:
        row = re.sub("</?b>", "", line).split("\t")
        split, metric = row[0] or split, row[1] or metric
        for model, cell in zip(MODELS, row[3:9], strict=True):
            key = (metric.lower(), None if split == "None" else split.lower(), f"{model}-{DATASETS[row[2]]}")
            cells[key] = None if cell == "-" else float(cell)
    assert len(cells) == 25 * 6
    assert sum(cell is None for cell in cells.values()) == 6
    names = {name for _, _, name in cells}
    runs = {name: read_run(tmp_path, name=name) for name in names}
    for (metric, part, name), cell in cells.items():
        assert number(runs[name], metric, part) == cell, (metric, part, name)
    assert set(PARTS) == {(metric, part) for metric, part, _ in cells}


def test_two_cells(tmp_path: Path) -> None:
    """Two cells typed in by hand, for machines without a copy of the paper."""
    run = read_run(tmp_path)
    assert (number(run, "fid", "train"), number(run, "kid", "test")) == (17.93, 0.0142)
    assert number(run, "precision", "train") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sngan-cifar10", "SNGAN"),
        ("ssgan-dat-stl10", "SSGAN-DAT"),
        ("infomaxgan-lsun-bedroom", "InfoMaxGAN"),
        ("dcgan-cifar10", None),
        ("csngan-cifar10", None),
        ("sngan-folder", None),
        ("mlp-gaussians", None),
    ],
)
def test_columns(tmp_path: Path, name: str, expected: str | None) -> None:
    assert column(read_run(tmp_path, name=name)) == expected


@pytest.mark.parametrize(
    "changes", [{"attack": {"name": "asgan", "eps": 0.1}}, {"regularizers": [{"name": "r1", "gamma": 1.0}]}]
)
def test_the_table_has_no_column_of_other_attacks_and_regularizers(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    runs = [make_run(tmp_path / "with", config=changes), make_run(tmp_path / "without")]
    assert [column(run) for run in read_runs(runs)] == [None, "SNGAN-DAT"]


_STL10 = {"split": "test", "data": "stl10 test", "resolution": 48}


@pytest.mark.parametrize(
    ("dataset", "record", "expected"),
    [
        ("cifar10", scored(1, {"fid": 1.0}), []),
        ("cifar10", scored(1, {"fid": 1.0}, split="test", real_count=10_000), []),
        ("cifar10", scored(1, {"fid": 1.0}, split="test", real_count=10_000, fake_count=10_000), []),
        ("stl10", scored(1, {"fid": 1.0}, real_count=8_000, **_STL10), []),
        ("stl10", scored(1, {"fid": 1.0}, real_count=10_000, **_STL10), ["10,000 reals, not 8,000"]),
        ("cifar10", scored(1, {"is": 1.0}, real_count=None), []),
        ("cifar10", scored(1, {"fid": 1.0}, fake_count=10_000), ["10,000 fakes, not 50,000"]),
        (
            "cifar10",
            scored(1, {"fid": 1.0}, data="mine train", resolution=16),
            ["reals of mine train, not of cifar10", "at 16 pixels, not 32"],
        ),
        (
            "cifar10",
            scored(1, {"kid": 1.0}, extractor="efficientnet-lite0", fake_count=None),
            ["extractor is efficientnet-lite0, not Inception", "an unknown number of fakes, not 50,000"],
        ),
    ],
)
def test_objections_to_a_comparison_with_the_paper(
    tmp_path: Path, dataset: str, record: dict[str, Any], expected: list[str]
) -> None:
    (kind,) = score_series(read_run(tmp_path, record))
    assert objections(kind, dataset) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"split": "test", "fake_count": 10_000}, "10,000 fakes, as in the released code"),
        ({"split": "test", "fake_count": 50_000}, "50,000 fakes, fastdat's default"),
        ({"split": "test", "fake_count": 9_000}, ""),
        ({"split": "train", "fake_count": 10_000}, ""),
    ],
)
def test_of_a_test_score_it_is_said_how_many_fakes_it_has(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    """The paper does not say it."""
    (kind,) = score_series(read_run(tmp_path, scored(1, {"fid": 1.0}, real_count=10_000, **changes)))
    assert counted_fakes(kind) == expected
