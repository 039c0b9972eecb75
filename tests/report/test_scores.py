"""Scores of one kind only stand side by side, and beside the paper's only where they may."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastdat.report.runs import RunRecord, read_runs
from fastdat.report.score_table import Kind, kinds_of, series_of
from fastdat.report.table2 import ATTACK, PARTS, SETTINGS, column, differences, number, objections
from fastdat.training import preset
from fastdat.training.resume import FREE
from tests.environment import REPOSITORY
from tests.report.runs import make_run, scored

PAPER = REPOSITORY.parent / "shared" / "paper" / "dat-paper.txt"
DATASETS = {
    "LSUN-Bedroom": "lsun-bedroom",
    "Tiny-ImageNet": "tiny-imagenet",
    "STL-10": "stl10",
    "CIFAR-100": "cifar100",
    "CIFAR-10": "cifar10",
}
MODELS = ("sngan", "sngan-dat", "ssgan", "ssgan-dat", "infomaxgan", "infomaxgan-dat")


def read(tmp_path: Path, *metrics: dict[str, Any], name: str = "sngan-dat-cifar10") -> RunRecord:
    (run,) = read_runs([make_run(tmp_path / name, name, metrics=metrics, grids=0)])
    return run


def kinds(run: RunRecord) -> list[Kind]:
    return kinds_of([series_of(run)])


# --- the paper's Table II ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not PAPER.is_file(), reason=f"no paper here: {PAPER}")
def test_every_cell_of_table_2_is_the_papers(tmp_path: Path) -> None:
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
    runs = {name: read(tmp_path, name=name) for name in names}
    for (metric, part, name), cell in cells.items():
        assert number(runs[name], metric, part) == cell, (metric, part, name)
    assert set(PARTS) == {(metric, part) for metric, part, _ in cells}


def test_cells(tmp_path: Path) -> None:
    """Two of them by eye, where the paper is not at hand."""
    run = read(tmp_path)
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
    assert column(read(tmp_path, name=name)) == expected


def test_settings_of_table_1_have_no_difference(tmp_path: Path) -> None:
    for name in ("sngan-cifar10", "ssgan-dat-tiny-imagenet", "infomaxgan-stl10"):
        path = make_run(tmp_path / name, name, config={"steps": 100_000}, steps=0, grids=0)
        (path / "stats.jsonl").write_text('{"step": 100000}\n')
        (run,) = read_runs([path])
        assert differences(run) == []


def test_everything_that_changes_a_run_is_compared() -> None:
    """A setting that is neither compared nor known to change nothing fails here, when it is added."""
    flat = {
        key if not isinstance(value, dict) else f"{key}.{inner}"
        for key, value in preset("sngan-dat-cifar10").to_dict().items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    compared = {*SETTINGS, *ATTACK, "resolution", "lr_decay"}
    named = {"model", "dataset", "seed", "channels_last"}  # the column, and what is another run of the same
    free = {key for key in flat if key.partition(".")[0] in FREE}
    assert flat - compared == named | free
    assert compared <= flat


def test_differences_are_told(tmp_path: Path) -> None:
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


# --- kinds of scores ---------------------------------------------------------------------------------------------


def test_only_inceptions_scores_have_the_plain_names(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        scored(1, {"fid": 30.0, "kid": 0.02, "is": 7.0, "precision": 0.5}),
        scored(1, {"fid": 30.0, "kid": 0.5}, extractor="efficientnet-lite0"),
        scored(1, {"modes": 9.0}, extractor="none"),
    )
    assert [kind.short for kind in kinds(run)] == [
        "FID",
        "KID",
        "IS",
        "Precision [inception-v3-compat]",
        "FID [efficientnet-lite0]",
        "KID [efficientnet-lite0]",
        "Modes found",
    ]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1}, True),
        ({"versions": {}}, True),
        ({"is_splits": 5}, True),  # no matter for FID
        ({"kid_subset_size": 5}, True),
        ({"fake_count": 10_000}, False),
        ({"real_count": 10_000}, False),
        ({"split": "test"}, False),
        ({"extractor": "mine"}, False),
        ({"extractor_sha256": "1" * 64}, False),
        ({"resize": "bilinear 96"}, False),
        ({"resolution": 48}, False),
        ({"data_sha256": "2" * 64}, False),
        ({"data": "cifar10 test"}, False),
        ({"weights": "ema"}, False),
    ],
)
def test_what_makes_fids_of_one_kind(tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    run = read(tmp_path, scored(1, {"fid": 30.0}), scored(2, {"fid": 20.0}, **change))
    assert [len(series.steps) for series in series_of(run).values()] == ([2] if same else [1, 1])


def test_details_say_of_what(tmp_path: Path) -> None:
    (kind,) = kinds(
        read(tmp_path, scored(1, {"fid": 30.0}, split="test", data="cifar10 test", real_count=10_000))
    )
    assert kind.details == "50,000 fakes, 10,000 reals of cifar10 test at 32, extractor 5eefa9b2"
    (kind,) = kinds(read(tmp_path / "is", scored(1, {"is": 7.0})))
    assert kind.details == "50,000 fakes, extractor 5eefa9b2"


def test_inception_score_is_of_no_split(tmp_path: Path) -> None:
    run = read(tmp_path, scored(1, {"is": 7.0}), scored(2, {"is": 8.0}, split="test", real_count=10_000))
    ((kind, series),) = series_of(run).items()
    assert (kind.split, kind.reals, series.values) == (None, None, [7.0, 8.0])


def test_a_step_scored_twice_counts_with_the_later_score(tmp_path: Path) -> None:
    run = read(tmp_path, scored(5, {"fid": 30.0}), scored(5, {"fid": 31.0}))
    (series,) = series_of(run).values()
    assert (series.steps, series.values) == ([5], [31.0])


def test_best_and_form(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        scored(1, {"kid": 0.02, "kid_std": 0.001, "is": 7.0, "odd": 1.0}),
        scored(2, {"kid": 0.0133, "kid_std": None, "is": 8.0, "odd": 2.0}),
        scored(3, {"kid": 0.0133, "is": 7.5, "odd": None}),
    )
    series = {kind.name: (kind, found) for kind, found in series_of(run).items()}
    kid, of_kid = series["kid"]
    assert [of_kid.form(kid, i) for i in range(3)] == ["0.0200 ± 0.0010", "0.0133", "0.0133"]
    assert of_kid.best(kid) == 1  # the earlier of two
    inception, of_inception = series["is"]
    assert of_inception.best(inception) == 1
    odd, of_odd = series["odd"]
    assert (of_odd.steps, of_odd.best(odd)) == ([1, 2], None)


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
def test_what_is_not_comparable_with_the_paper(
    tmp_path: Path, dataset: str, record: dict[str, Any], expected: list[str]
) -> None:
    (kind,) = kinds(read(tmp_path, record))
    assert objections(kind, dataset) == expected
