"""The landing picture, drawn from the files of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from fastdat.experiments.figure_style import COLOURS, FAINT
from fastdat.experiments.points.fig3 import ARMS
from fastdat.experiments.points.fig3_landing import draw_landing, final_panels, write_landing
from fastdat.util.errors import DataError
from tests.environment import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results" / "fig3"


@pytest.fixture
def folder(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, for tests that write into it."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def record_and_picture(folder: Path) -> tuple[dict[str, Any], Image.Image]:
    with Image.open(folder / "fig3.png") as image:
        return json.loads((folder / "fig3.json").read_text()), image.convert("RGB")


def test_size_of_the_picture(folder: Path) -> None:
    out = write_landing(folder)
    assert out == folder / "landing.png"
    with Image.open(out) as image:
        assert image.size == (1040, 552)
    assert out.stat().st_size < 150_000


def test_scores_are_those_of_the_results() -> None:
    record, picture = record_and_picture(RESULTS)
    shown = [text.get_text() for text in draw_landing(record, picture).texts]
    for row in (
        ["6/9 modes", "quality 0.94", "4.6 ± 1.0 modes", "quality 0.93 ± 0.03"],
        ["2/9 modes", "quality 0.98", "2.3 ± 0.5 modes", "quality 0.92 ± 0.06"],
        ["9/9 modes", "quality 0.89", "9.0 ± 0.0 modes", "quality 0.90 ± 0.02"],
        ["quality 0.96", "8.9 ± 0.3 modes", "quality 0.90 ± 0.13"],
    ):
        assert set(row) <= set(shown)
    assert any("seed 0 after 10,000 iterations" in text and "10 seeds" in text for text in shown)


def test_committed_picture_is_up_to_date(tmp_path: Path) -> None:
    """`fastdat reproduce fig3 --landing --outdir bench/results/fig3` draws the committed picture again."""
    for name in ("fig3.json", "fig3.png"):
        shutil.copy(RESULTS / name, tmp_path)
    pictures = []
    for path in (RESULTS / "landing.png", write_landing(tmp_path)):
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB"), dtype=np.int64))
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 1
    assert (RESULTS / "landing.png").stat().st_size < 150_000


def test_curves_are_the_means_over_seeds(small_run: Path) -> None:
    record, picture = record_and_picture(small_run)
    axes = [a for a in draw_landing(record, picture).axes if a.lines]
    assert len(axes) == 2
    for name, shown in zip(("balanced", "imbalanced"), axes, strict=True):
        assert [str(line.get_label()) for line in shown.lines] == list(ARMS)
        for arm, line in zip(ARMS, shown.lines, strict=True):
            measurements = record["arms"][arm]["measurements"]
            assert list(line.get_xdata()) == [m["iteration"] for m in measurements]
            assert list(line.get_ydata()) == [m[name]["modes"]["mean"] for m in measurements]


def test_panels_are_the_last_checkpoint_of_their_arm() -> None:
    """Each holds the points of its arm in its colour, touches no frame, and is enclosed by one."""
    _, picture = record_and_picture(RESULTS)
    pixels = np.asarray(picture, dtype=np.int64)
    boxes = final_panels(10_000, picture.size)
    assert len(boxes) == 6
    for (arm, _), (left, top, right, bottom) in boxes.items():
        assert abs((right - left) - (bottom - top)) <= 1
        panel = pixels[top:bottom, left:right].reshape(-1, 3)
        colour = np.array(to_rgb(COLOURS[list(ARMS).index(arm)])) * 255
        assert (np.abs(panel - colour).max(axis=1) < 12).sum() > 50
        frame = np.array(to_rgb(FAINT)) * 255
        outside = pixels[top:bottom, left - 4 : left].astype(float)
        assert (np.abs(outside - frame).max(axis=2).min(axis=1) < 40).all()
        inside = pixels[top:bottom, left : left + 1].astype(float)
        assert not (np.abs(inside - frame).max(axis=2) < 40).all()


def test_panel_of_another_run_is_refused(folder: Path) -> None:
    shutil.copy(RESULTS / "fig3.png", folder)
    (folder / "fig3.json").write_text(
        (folder / "fig3.json").read_text().replace('"iterations": 6', '"iterations": 2')
    )
    with pytest.raises(DataError, match="give files of one run"):
        write_landing(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "needs fig3.json and fig3.png"),
        ("{}", "is not a record of Fig. 3: KeyError"),
        ("[]", "is not a record of Fig. 3: TypeError"),
    ],
)
def test_damaged_record(folder: Path, content: str, message: str) -> None:
    (folder / "fig3.json").write_text(content)
    with pytest.raises(DataError, match=message):
        write_landing(folder)


def test_missing_and_damaged_picture(folder: Path) -> None:
    (folder / "fig3.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"needs fig3\.json and fig3\.png"):
        write_landing(folder)
    (folder / "fig3.png").unlink()
    with pytest.raises(DataError, match=r"needs fig3\.json and fig3\.png"):
        write_landing(folder)
