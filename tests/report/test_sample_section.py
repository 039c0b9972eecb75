"""The samples side by side: at equal steps, and without gaps."""

from pathlib import Path

import pytest

from fastdat.report.grids import read_grids
from fastdat.report.runs import read_runs
from fastdat.report.sample_section import Samples, columns, samples
from tests.report.html_page import report
from tests.report.runs import make_run, png


@pytest.mark.parametrize(
    ("cards", "wide", "middle", "narrow"),
    [
        (1, (1, 1), (1, 1), (1, 1)),
        (2, (2, 1), (2, 1), (2, 1)),
        (3, (3, 1), (3, 1), (2, 2)),
        (4, (4, 1), (2, 1), (2, 1)),
        (5, (5, 1), (2, 2), (2, 2)),  # four runs in two rows, and the reals below them
        (6, (3, 1), (3, 1), (2, 1)),
        (7, (4, 2), (2, 2), (2, 2)),
        (11, (4, 2), (2, 2), (2, 2)),
    ],
)
def test_columns(cards: int, wide: tuple[int, int], middle: tuple[int, int], narrow: tuple[int, int]) -> None:
    assert (columns(cards, 5), columns(cards, 3), columns(cards, 2)) == (wide, middle, narrow)


@pytest.mark.parametrize("most", [2, 3, 5])
def test_no_row_ends_early(most: int) -> None:
    for cards in range(1, 60):
        across, last = columns(cards, most)
        assert 1 <= last <= across <= most
        assert (cards - 1 + last) % across == 0


def of(*paths: Path) -> Samples:
    runs = read_runs(paths)
    return samples(runs, read_grids(runs)[0])


def test_the_last_step_that_all_runs_have_is_shown(tmp_path: Path) -> None:
    long, short = make_run(tmp_path / "long", grids=5), make_run(tmp_path / "short", grids=3)
    none = make_run(tmp_path / "none", grids=0)
    found = of(long, short, none)
    assert (found.step, [run.shown for run in found.runs]) == (10, [2, 2, -1])
    page = report(tmp_path, long, short, none)
    shown = [
        image["data-step"] for image in page.find("img") if "data-step" in image and "hidden" not in image
    ]
    assert shown == ["10", "10"]
    assert "Step 10 is the last of which all runs have a grid." in page.text


def test_untrained_samples_are_not_shown_for_the_sake_of_equal_steps(tmp_path: Path) -> None:
    """A run that has just begun has only the grid of step 0."""
    found = of(make_run(tmp_path / "long", grids=5), make_run(tmp_path / "new", grids=1))
    assert (found.step, [run.shown for run in found.runs]) == (None, [-1, -1])


def test_reals_are_shown_once_for_each_data_set(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "sngan-dat-cifar10"),
        make_run(tmp_path / "b", "sngan-cifar10", config={"data": "/elsewhere"}),
        make_run(tmp_path / "c", "sngan-stl10"),
        make_run(tmp_path / "d", "sngan-folder", config={"data": "/cats", "resolution": 32}),
        make_run(tmp_path / "e", "sngan-folder", config={"data": "/dogs", "resolution": 32}),
        make_run(tmp_path / "f", "mlp-gaussians"),
    ]
    (runs[1] / "reals.png").write_bytes(png((1, 2, 3)))
    assert [title for title, _ in of(*runs).reals] == [
        "CIFAR-10 at 32",
        "STL-10 at 48",
        "folder at 32",
        "folder at 32",
        "gaussians",
    ]
    (runs[0] / "reals.png").unlink()
    title, picture = of(*runs).reals[0]
    assert (title, picture.png) == ("CIFAR-10 at 32", png((1, 2, 3)))
