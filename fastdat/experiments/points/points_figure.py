"""A figure of generated points side by side: a column for each arm, a row for each mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from fastdat.data.mixture import Mixture
from fastdat.experiments.figure_style import COLOURS, INK, draw_points, style_panel
from fastdat.experiments.points.study import SHOWN, Arm

_SIDE = 1.45  # of a panel, inches


def draw_arms(
    arms: Sequence[Arm], mixtures: Sequence[Mixture], *, titles: Sequence[str] = (), per_row: int = 6
) -> Figure:
    """Points of the first seed at the end of the training, from equal z, beside real points.

    Args:
        arms: from left to right.
        mixtures: of the study, from top to bottom.
        titles: of the arms; their names if there are none.
        per_row: how many columns stand beside each other; further ones go below.
    """
    real = torch.stack([mixture.sample(SHOWN, torch.Generator().manual_seed(0)) for mixture in mixtures])
    listed: list[tuple[str, torch.Tensor, str]] = [("real", real, INK)]
    for arm, title in zip(arms, titles or [arm.name for arm in arms], strict=True):
        assert arm.last.points is not None, "the last measurement of a quick study is a checkpoint"
        listed.append((title, arm.last.points, COLOURS[1]))
    width = min(per_row, len(listed))
    blocks = -(-len(listed) // width)
    figure = Figure(
        figsize=(_SIDE * width + 0.3, blocks * (_SIDE * len(mixtures) + 0.4)), layout="constrained"
    )
    panels = figure.subplots(blocks * len(mixtures), width, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    for i, (title, points, colour) in enumerate(listed):
        block, column = divmod(i, width)
        for row, mixture in enumerate(mixtures):
            axes = panels[block * len(mixtures) + row][column]
            axes.set_visible(True)
            style_panel(axes)
            draw_points(axes, points[row], colour, mixture)
            if row == 0:
                axes.set_title(title.replace(", ", ",\n"), color=INK, fontsize=8.5)
            if column == 0:
                axes.set_ylabel(mixture.name, color=INK, fontsize=9)
    return figure
