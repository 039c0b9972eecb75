"""The paper's Table II, and when a run may be compared with it."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastdat.report.runs import read_runs
from fastdat.report.score_table import score_series
from fastdat.report.table2 import ATTACK, PARTS, SETTINGS, column, differences, number, objections
from fastdat.training import preset
from fastdat.util.free_settings import FREE
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


def test_settings_of_table_1_do_not_differ(tmp_path: Path) -> None:
    for name in ("sngan-cifar10", "ssgan-dat-tiny-imagenet", "infomaxgan-stl10"):
        path = make_run(tmp_path / name, name, config={"steps": 100_000}, steps=0, grids=0)
        (path / "stats.jsonl").write_text('{"step": 100000}\n')
        (run,) = read_runs([path])
        assert differences(run) == []


def test_every_setting_that_changes_a_run_is_compared() -> None:
    """A new setting fails here until it is either compared or listed as one that does not change the result."""
    flat = {
        key if not isinstance(value, dict) else f"{key}.{inner}"
        for key, value in preset("sngan-dat-cifar10").to_dict().items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    compared = {*SETTINGS, *ATTACK, "resolution", "lr_decay"}
    # Which run of which column; the models of the table have no classes.
    named = {"model", "dataset", "seed", "channels_last", "classes", "attack", "regularizers"}
    free = {key for key in flat if key.partition(".")[0] in FREE}
    assert flat - compared == named | free
    assert compared <= flat


def test_settings_that_are_unset_are_named(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "run", config={"init_from": "runs/first", "augment": "diffaug"})])
    assert differences(run)[:2] == [
        "init_from is runs/first, the paper's is none",
        "augment is diffaug, the paper's is none",
    ]


def test_differences(tmp_path: Path) -> None:
    dat = preset("sngan-dat-cifar10").to_dict()["dat"] | {"eps": 9.0, "fake": False, "second_order": True}
    changes = {"batch_size": 32, "lr_decay": "none", "n_dis": 2, "ngf": 32, "flip": True, "dat": dat}
    (run,) = read_runs([make_run(tmp_path / "run", config=changes)])
    assert differences(run) == [
        "ngf is 32, the paper's is the full width",
        "batch_size is 32, the paper's is 64",
        "n_dis is 2, the paper's is 5",
        "flip is True, the paper's is False",
        "lr_decay is none, the paper's is linear",
        "dat.eps is 9.0, the paper's is 1.0",
        "dat.second_order is True, the paper's is False",
        "dat.fake is False, the paper's is True",
        "40 steps, the paper's are 100,000",
    ]


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
