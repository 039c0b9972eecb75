"""Tiny runs of experiments on points, and what their tables should hold, found without the code of studies."""

from __future__ import annotations

from typing import Any

from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.outcome import Outcome, Runs
from fastdat.experiments.points.ensemble import Ensemble, Recipe
from fastdat.metrics.modes import coverage

TINY: dict[str, Any] = {"seeds": 2, "compile": False, "device": "cpu"}


def cells(outcome: Outcome, table: int = 0) -> dict[str, dict[str, Any]]:
    return {row.label: dict(row.cells) for row in outcome.tables[table].rows}


def expected(attack: Any, recipe: Recipe) -> dict[str, Any]:
    """The cells of an arm after two iterations of seeds 0 and 1, without any code of studies or tables."""
    ensemble = Ensemble((BALANCED, IMBALANCED), (0, 1), attack, recipe)
    ensemble.train(2)
    found = {}
    for mixture, points in zip((BALANCED, IMBALANCED), ensemble.sample(10_000), strict=True):
        seen = coverage(points, mixture)
        found[f"modes, {mixture.name}"] = Runs(tuple(map(float, seen.modes)))
        found[f"quality, {mixture.name}"] = Runs(tuple(seen.high_quality.tolist()))
        found[f"KL, {mixture.name}"] = Runs(tuple(seen.kl.tolist()))
    return found
