"""Tables, sentences and figures of a study on points."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import COLOURS, draw_band
from fastdat.experiments.points.points_figure import draw_arms
from fastdat.experiments.points.quick_study import DAT, MIXTURES, NO_ATTACK, quick_study
from fastdat.experiments.points.study_tables import (
    arm_words,
    chosen,
    columns,
    command,
    last_rows,
    mean,
    means_words,
    over_mixtures,
    protocol,
)
from fastdat.experiments.points.sweep_figure import Sweep, draw_sweeps
from fastdat.util.errors import ConfigError
from tests.experiments.made_results import made_result

STUDY = quick_study("a study", {"none": NO_ATTACK, "DAT": DAT}, Options(seeds=3))
RESULT = made_result(STUDY, {"none": ((5, 0.9, 0.8), (4, 0.7, 0.5)), "DAT": ((8, 0.6, 0.25), (7, 0.5, 0.12))})


def test_rows_hold_every_seed_and_the_papers_numbers() -> None:
    none, dat = last_rows(RESULT, {"DAT": {"train FID": 17.93}})
    assert (none.label, none.paper, dat.label, dat.paper) == ("none", {}, "DAT", {"train FID": 17.93})
    names = [column.name for column in columns(MIXTURES)]
    assert names == [
        "modes, balanced",
        "quality, balanced",
        "KL, balanced",
        "modes, imbalanced",
        "quality, imbalanced",
        "KL, imbalanced",
    ]
    first = (8, 0.6, 0.25, 7, 0.5, 0.12)
    for name, value in zip(names, first, strict=True):
        runs = dat.cells[name]
        assert list(runs.values) == pytest.approx([value, value + 0.01, value + 0.02])


def test_an_arm_that_diverged_has_a_row_that_says_so() -> None:
    none, dat = last_rows(replace(RESULT, arms=RESULT.arms[:1], diverged={"DAT": "DAT: NaN"}))
    assert list(none.cells) == list(dat.cells)
    assert set(dat.cells.values()) == {"diverged"}


def test_a_seeds_mean_over_mixtures() -> None:
    _, dat = RESULT.arms
    assert over_mixtures(dat.last, "modes").values == pytest.approx((7.5, 7.51, 7.52))
    assert over_mixtures(dat.last, "KL").values == pytest.approx((0.185, 0.195, 0.205))


def test_means() -> None:
    _, dat = RESULT.arms
    assert mean(dat.last, "modes") == pytest.approx((8.01 + 7.01) / 2)
    assert mean(dat.last, "KL") == pytest.approx((0.26 + 0.13) / 2)
    assert means_words(dat.last, "quality") == "0.61 / 0.51"
    assert arm_words(dat) == "DAT (8.0 / 7.0 modes, quality 0.61 / 0.51, KL 0.26 / 0.13)"


def test_protocol_says_what_was_trained() -> None:
    text = " ".join(protocol(replace(RESULT, compiled=False)))
    for part in (
        "2,500 iterations",
        "3 seeds",
        "4 hidden layers of 64",
        "0.001",
        "not compiled",
        "balanced and",
    ):
        assert part in text
    assert "Left out" not in text
    diverged = replace(RESULT, diverged={"GP": "GP: G gives NaN or infinity after 5 iterations"})
    assert protocol(diverged)[-1] == "Left out: GP: G gives NaN or infinity after 5 iterations."


def test_chosen() -> None:
    arms = {"eps 1": 1, "eps 1.4": 2, "none": 3}
    assert chosen(arms, ()) == arms
    assert chosen(arms, ("eps 1", "x")) == {"eps 1": 1}  # a whole name
    assert chosen(arms, ("eps 1.",)) == {"eps 1.4": 2}
    assert chosen(arms, ("eps",)) == {"eps 1": 1, "eps 1.4": 2}
    assert chosen(arms, ("none", "eps 1")) == {"eps 1": 1, "none": 3}
    with pytest.raises(ConfigError, match=r"--only x --only y leaves no arm\. .*eps 1; eps 1\.4; none"):
        chosen(arms, ("x", "y"))


def test_command() -> None:
    assert command("fig6", Options()) == "fastdat reproduce fig6 --quick"
    assert command("fig6", Options(seeds=2, only=("eps 1", "none"), compile=False)) == (
        "fastdat reproduce fig6 --quick --only 'eps 1' --only none --seeds 2 --no-compile"
    )


def test_band() -> None:
    axes = Figure().subplots()
    draw_band(axes, (1, 3), ((0.5, 0.25), (8.9, 0.5)), COLOURS[0], "found", limits=(0.4, 9.0))
    (line,), (band,) = axes.lines, axes.collections
    assert [list(line.get_xdata()), list(line.get_ydata())] == [[1, 3], [0.5, 8.9]]
    heights = {(float(x), round(float(y), 9)) for x, y in band.get_paths()[0].vertices}  # type: ignore[union-attr]
    assert heights == {(1.0, 0.4), (1.0, 0.75), (3.0, 8.4), (3.0, 9.0)}


def test_sweep_figure() -> None:
    none, dat = RESULT.arms
    sweep = Sweep("eps = 1", [0.5, 2.0], [dat, none])
    figure = draw_sweeps([sweep, Sweep("eps = 2", [3.0], [dat])], MIXTURES, "K", none)
    panels = figure.axes
    assert len(panels) == 6
    assert [axes.get_title() for axes in panels[:2]] == ["eps = 1", "eps = 2"]
    assert [axes.get_ylabel() for axes in panels[::2]] == ["modes found", "quality", "KL, nats"]
    assert [axes.get_xlabel() for axes in panels[4:]] == ["K", "K"]
    expected = {"balanced": [0.26, 0.81], "imbalanced": [0.13, 0.51]}
    lines = {str(line.get_label()): list(line.get_ydata()) for line in panels[4].lines}
    for name, values in expected.items():
        assert lines[name] == pytest.approx(values)
        assert lines[f"{name}, none"] == pytest.approx([values[1]] * 2)


def test_columns_of_a_sweep_figure_share_the_range_of_the_greater() -> None:
    none, dat = RESULT.arms
    figure = draw_sweeps([Sweep("", [1.0], [dat]), Sweep("", [1.0], [none])], MIXTURES, "K", None)
    for axes in figure.axes[4:]:
        assert axes.get_ylim()[0] == 0
        assert 0.81 < axes.get_ylim()[1] < 1.0  # KL of "none"


def test_points_of_arms() -> None:
    none, dat = RESULT.arms
    figure = draw_arms([dat, none], (BALANCED, IMBALANCED), titles=["first, x", "second"], per_row=2)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown if axes.get_title()] == ["real", "first,\nx", "second"]
    assert len(shown) == 6
    assert dat.last.points is not None
    by_row = [axes for axes in shown if len(axes.collections[0].get_offsets()) == 8]
    assert len(by_row) == 4  # the real points are more
    for axes, row in zip((by_row[0], by_row[1]), dat.last.points, strict=True):
        offsets = torch.as_tensor(axes.collections[0].get_offsets().data)  # type: ignore[union-attr]
        torch.testing.assert_close(offsets.float(), row)


def test_a_study_is_measured_at_fifths() -> None:
    assert STUDY.measurements == (500, 1_000, 1_500, 2_000, 2_500)
    assert STUDY.checkpoints == (2_500,)
    assert math.isclose(STUDY.recipe.lr, 1e-3)
