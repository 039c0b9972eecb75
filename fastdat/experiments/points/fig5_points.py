"""Fig. 5 on points: 0-GP beside DAT with the loss of WGAN, from equal z.

The paper shows images and says that those of 0-GP are poor. Here: nine Gaussians, nets and training of Fig. 3, the
weight 10 of 0-GP (the paper prints none), a smaller weight, and DAT together with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import ResultTable
from fastdat.experiments.points.ensemble import Recipe
from fastdat.experiments.points.points_figure import draw_arms
from fastdat.experiments.points.quick_study import quick_study, run_quick
from fastdat.experiments.points.regularizer_study import ARMS
from fastdat.experiments.points.study import Study
from fastdat.experiments.points.study_record import arms_as_dict, settings_as_dict
from fastdat.experiments.points.study_tables import arm_words, columns, last_rows, protocol
from fastdat.experiments.training_origin import Origin

#: Arms of ``regularizer_study``, from left to right.
SHOWN_ARMS = ("0-GP real 10", "0-GP both 0.1", "DAT", "DAT + 0-GP both 0.1")


@dataclass(frozen=True)
class PointsPart:
    """What Fig. 5 looks like on points; a part of the outcome of Fig. 5.

    Args:
        table: coverage of each arm.
        findings: one sentence for each arm.
        protocol: what was trained and measured.
        figure: points side by side.
        origin: where it was trained.
        config: all settings, in types that JSON knows.
        details: all numbers, likewise.
    """

    table: ResultTable
    findings: tuple[str, ...]
    protocol: tuple[str, ...]
    figure: Figure
    origin: Origin
    config: dict[str, Any]
    details: dict[str, Any]


def run_points(options: Options, folder: Path) -> PointsPart:
    """Train and measure, or go on where an earlier run in ``folder`` stopped."""
    result = run_quick(study(options), options, folder)
    mixtures = result.study.mixtures
    return PointsPart(
        table=ResultTable("wgan on nine Gaussians", "arm", columns(mixtures), last_rows(result)),
        findings=tuple(f"wgan on nine Gaussians: {arm_words(arm)}." for arm in result.arms),
        protocol=protocol(result),
        figure=draw_arms(result.arms, mixtures),
        origin=result.origin,
        config=settings_as_dict(result),
        details={"arms": arms_as_dict(result)},
    )


def study(options: Options) -> Study:
    """What is trained and measured."""
    return quick_study(
        "fig5",
        {name: ARMS[name][0] for name in SHOWN_ARMS},
        options,
        recipe=Recipe(loss="wgan"),
        regularizers={name: ARMS[name][1] for name in SHOWN_ARMS},
    )
