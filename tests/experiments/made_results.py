"""Results of studies on points with numbers of one's choice, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from fastdat.experiments.points.study import Arm, Measurement, Study, StudyResult, Times
from fastdat.metrics.modes import coverage

Numbers = Sequence[float]
"""Of one mixture: modes, quality and KL, which the first seed has; every further seed has one hundredth more."""


def made_result(study: Study, found: Mapping[str, Sequence[Numbers]]) -> StudyResult:
    """A result whose arms have ended with ``found``: arm -> numbers of each mixture."""
    assert set(found) == set(study.arms)
    arms = tuple(_arm(study, name, found[name]) for name in study.arms)
    return StudyResult(study, True, torch.device("cpu"), arms, 60.0)


def _arm(study: Study, name: str, numbers: Sequence[Numbers]) -> Arm:
    seeds = torch.arange(study.seeds, dtype=torch.float64) / 100
    points = torch.linspace(-1, 1, 2 * 2 * 8).reshape(2, 8, 2)
    made = {}
    for mixture, (modes, quality, kl), x in zip(study.mixtures, numbers, points, strict=True):
        values = {"modes": modes + seeds, "high_quality": quality + seeds, "kl": kl + seeds}
        made[mixture.name] = replace(coverage(x.expand(study.seeds, -1, -1), mixture), **values)
    last = Measurement(study.iterations, made, points)
    return Arm(name, study.arms[name], study.recipe_of(name), (last,), Times(10.0, 20.0, 2_499, 32.0))
