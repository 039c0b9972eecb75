"""The files of the comparison of regularizers: a table for people, and all numbers as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastdat.data.mixture import MEANS
from fastdat.experiments.points.study import Arm, StudyResult
from fastdat.experiments.points.study_record import as_dict, mean_and_std
from fastdat.metrics.modes import FOUND, NEAR, Coverage
from fastdat.regularizers.cost import cost
from fastdat.util.files import write_atomically

NOTE = (
    "This experiment is fastdat's own: the nets and the training of Fig. 3, but the paper has no table of regularizers "
    "on these data."
)


def write(results: Sequence[StudyResult], config: Mapping[str, Any], outdir: Path) -> None:
    """Write regularizers.json and regularizers.md. ``config`` holds the experiment's settings.

    Args:
        results: of each loss.
        config: the experiment's settings.
        outdir: a folder that exists.
    """
    record = {"note": NOTE, "losses": {r.study.recipe.loss: as_dict(r, config) for r in results}}
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(outdir / "regularizers.json", text.encode())
    write_atomically(outdir / "regularizers.md", markdown(results).encode())


def markdown(results: Sequence[StudyResult]) -> str:
    """The tables of all losses, and what their columns mean."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Sequence[StudyResult]) -> Iterator[str]:
    study = results[0].study
    yield "# Regularizers on nine Gaussians"
    yield ""
    yield NOTE
    yield ""
    mixtures = " and ".join(mixture.name for mixture in study.mixtures)
    yield (
        f"Means after {study.iterations:,} iterations, over {study.seeds} seed{'s' * (study.seeds > 1)}, for {mixtures}"
        f" modes. Modes: found of {len(MEANS)}, with over {FOUND:g} of their due share. Quality: points within "
        f"{NEAR:g} std of a mode. KL: of the modes' shares against the true ones, nats. Cost: of D's step, in forward "
        "passes of an image-sized D on both sides (`fastdat.regularizers.cost`). Milliseconds: an iteration of all "
        f"{results[0].arms[0].members} GANs."
    )
    for result in results:
        yield ""
        yield from _table(result)


def _table(result: StudyResult) -> Iterator[str]:
    names = [mixture.name for mixture in result.study.mixtures]
    yield f"## {result.study.recipe.loss}"
    yield ""
    columns = [f"{name}: {what}" for name in names for what in ("modes", "quality", "KL")]
    yield _row(["arm", *columns, "cost, F", "ms"])
    yield _row(["---"] * (len(columns) + 3))
    for arm in result.arms:
        found = arm.last.coverage
        cells = [cell for name in names for cell in _cells(found[name])]
        yield _row([arm.name, *cells, f"{_cost(arm):g}", f"{arm.milliseconds:.1f}"])


def _cells(found: Coverage) -> tuple[str, str, str]:
    modes, quality, kl = (mean_and_std(values)[0] for values in (found.modes, found.high_quality, found.kl))
    return f"{modes:.1f}", f"{quality:.2f}", f"{kl:.2f}"


def _cost(arm: Arm) -> float:
    return cost(arm.attack, arm.recipe.regularizers)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
