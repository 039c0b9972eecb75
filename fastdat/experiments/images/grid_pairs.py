"""Figures of generated images: the grids of two arms side by side, made from equal z and chosen by nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastdat.experiments.figure_style import FAINT, INK
from fastdat.experiments.images.image_study import Trained
from fastdat.training.png import grid
from fastdat.training.trained import load_trained
from fastdat.util.errors import RunFolderError

SHOWN = 64
"""Images in a grid."""
LATENTS = 0
"""Seed of z, and of the labels if there are any: equal for all grids, so that equal places show equal z."""
_INCHES = 4.4


@dataclass(frozen=True)
class Panel:
    """A grid with its title.

    Args:
        title: stands above it.
        images: (n, C, H, W) in [-1, 1]; None where there are none.
    """

    title: str
    images: Tensor | None


def panel(title: str, runs: Sequence[Trained], device: str) -> Panel:
    """The grid of the first run of an arm, from its last checkpoint; empty if there is no run or no checkpoint.

    Of a run that NaN ended, the title says so: its last checkpoint is of an earlier step than those of the others.
    """
    if not runs:
        return Panel(title, None)
    return Panel(f"{title} (diverged)" if runs[0].diverged else title, samples_of(runs[0], device))


def samples_of(run: Trained, device: str, count: int = SHOWN) -> Tensor | None:
    """``count`` images of a run's last checkpoint; None of a run that ended before its first checkpoint."""
    try:
        trained = load_trained(run.folder, "latest", device=device)
    except RunFolderError:
        if run.diverged:
            return None
        raise
    return torch.cat(list(trained.samples(count, seed=LATENTS))).float().cpu()


def draw_pairs(rows: Sequence[Sequence[Panel]]) -> Figure:
    """A figure of grids; each row is a comparison."""
    columns = max(map(len, rows))
    figure = Figure(figsize=(_INCHES * columns, (_INCHES + 0.3) * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        for x, shown in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, y * columns + x + 1)
            axes.set_title(shown.title, color=INK, fontsize=12)
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set(color=FAINT, linewidth=0.8)
            if shown.images is None:
                axes.text(0.5, 0.5, "no images", ha="center", color=INK, transform=axes.transAxes)
                axes.set_aspect("equal")
            else:
                # "nearest" at twice the size keeps each pixel visible as it is.
                axes.imshow(grid(shown.images, scale=2).permute(1, 2, 0).numpy(), interpolation="none")
    return figure
