"""What a study on Gaussian mixtures found, as tables and sentences of an outcome.

A cell is of all seeds of one arm and one mixture, at the end of the training or at another measurement.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fastdat.data.mixture import BALANCED, IMBALANCED, Mixture
from fastdat.experiments.arm_choice import chosen_names
from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Column, Row, Runs, Value
from fastdat.experiments.points.study import MEASURED, Arm, Measurement, StudyResult
from fastdat.metrics.modes import FOUND, NEAR, Coverage

Named = TypeVar("Named")

#: What is measured, and its decimal places: modes found of nine, share of good points, KL divergence in nats.
MEASURES = {"modes": 1, "quality": 2, "KL": 2}
#: The cells of an arm that is left out because it diverged.
DIVERGED = "diverged"
#: Said beside every table of points: what replaces the paper's scores, and why no difference is shown.
NOT_COMPARABLE = (
    "The paper's numbers are scores of images. They stand beside ours so that the orders can be compared; their "
    "differences say nothing."
)


def values_of(found: Coverage) -> dict[str, Tensor]:
    """Each of ``MEASURES``, one value per seed."""
    return {"modes": found.modes, "quality": found.high_quality, "KL": found.kl}


def columns(mixtures: Sequence[Mixture]) -> tuple[Column, ...]:
    """The three measures of each mixture: ``"modes, balanced"`` and so on."""
    return tuple(Column(f"{what}, {m.name}", digits) for m in mixtures for what, digits in MEASURES.items())


def cells(coverage: Mapping[str, Coverage]) -> dict[str, Runs]:
    """The values of all columns, a run for each seed, from the coverage of each mixture by its name."""
    return {
        f"{what}, {mixture}": Runs(tuple(values.double().tolist()))
        for mixture, found in coverage.items()
        for what, values in values_of(found).items()
    }


def last_cells(result: StudyResult, name: str) -> Mapping[str, Value]:
    """The values of all columns for the arm ``name`` at the end of the training; ``DIVERGED`` if it was left out."""
    if name in result.diverged:
        return {column.name: DIVERGED for column in columns(result.study.mixtures)}
    return cells(result.arm(name).last.coverage)


def last_rows(result: StudyResult, paper: Mapping[str, Mapping[str, float]] | None = None) -> tuple[Row, ...]:
    """A row for each arm of a study, at the end of the training.

    Args:
        result: the study.
        paper: the paper's numbers by the names of arms and columns.
    """
    return tuple(
        Row(name, last_cells(result, name), (paper or {}).get(name, {})) for name in result.study.arms
    )


def over_mixtures(measurement: Measurement, what: str) -> Runs:
    """One of ``MEASURES`` for each seed, the mean of its GANs on all mixtures."""
    values = [values_of(found)[what].double() for found in measurement.coverage.values()]
    return Runs(tuple(torch.stack(values).mean(dim=0).tolist()))


def mean(measurement: Measurement, what: str) -> float:
    """Mean of one of ``MEASURES`` over all seeds and mixtures."""
    values = [values_of(found)[what].double().mean() for found in measurement.coverage.values()]
    return float(sum(values) / len(values))


def means_words(measurement: Measurement, what: str) -> str:
    """The means over seeds of one of ``MEASURES``, mixture by mixture: ``"8.2 / 8.8"``."""
    found = (values_of(coverage)[what].double().mean() for coverage in measurement.coverage.values())
    return " / ".join(f"{float(value):.{MEASURES[what]}f}" for value in found)


def arm_words(arm: Arm) -> str:
    """``"DAT (8.2 / 8.8 modes, quality 0.75 / 0.86, KL 0.17 / 0.07)"``, at the end of the training."""
    return f"{arm.name} ({measures_words(arm.last)})"


def measures_words(measurement: Measurement) -> str:
    """``"8.2 / 8.8 modes, quality 0.75 / 0.86, KL 0.17 / 0.07"``: they belong together."""
    modes, quality, kl = (means_words(measurement, what) for what in MEASURES)
    return f"{modes} modes, quality {quality}, KL {kl}"


def protocol(result: StudyResult) -> tuple[str, ...]:
    """What was trained and measured: a paragraph for each, and one about arms that diverged."""
    study, recipe, compiled = result.study, result.study.recipe, result.compiled
    seeds = f"{study.seeds} seed{'s' * (study.seeds > 1)}"
    names = " and ".join(mixture.name for mixture in study.mixtures)
    return (
        f"Data: {_data(study.mixtures)}. Nets: MLPs with {recipe.layers} hidden layers of {recipe.hidden}, z of size "
        f"{recipe.nz}, initial weights `{recipe.init}`. Training: Adam, learning rate {recipe.lr:g}, betas "
        f"{recipe.betas}, batches of {recipe.batch_size}, one D step per G step, {study.iterations:,} iterations, "
        f"{seeds} for each mixture. The GANs of an arm are trained at once, {'' if compiled else 'not '}compiled, and "
        "all arms see the same points, z and initial weights.",
        f"Cells: mean ± standard deviation (runs), from {MEASURED:,} generated points a run. Modes: found of "
        f"{_counts(study.mixtures)}, with over {FOUND:g} of their due share. Quality: share of the points within "
        f"{NEAR:g} standard deviations of a mode; 0.99 for real points. KL: of the modes' shares against the true "
        "ones, in nats; 0 is perfect. Where two numbers stand in a sentence, the first is "
        f"{names.replace(' and ', ', the second ')}.",
        *(f"Left out: {message}." for message in result.diverged.values()),
    )


def _data(mixtures: Sequence[Mixture]) -> str:
    """What the points are: a mixture after the other, those of the paper in one."""
    if all(mixture in (BALANCED, IMBALANCED) for mixture in mixtures):
        names = " and ".join(mixture.name for mixture in mixtures)
        return f"{BALANCED.words}, standard deviation {BALANCED.std:g}, {names} (Sec. IV-A)"
    return "; ".join(f"{m.name}: {m.words}, standard deviation {m.std:g}" for m in mixtures)


def _counts(mixtures: Sequence[Mixture]) -> str:
    """The number of modes: ``"9"``, or ``"8 / 25"``."""
    return " / ".join(str(count) for count in dict.fromkeys(len(mixture.means) for mixture in mixtures))


def chosen(arms: Mapping[str, Named], only: Sequence[str]) -> dict[str, Named]:
    """The arms that ``only`` chooses by their names, see :func:`fastdat.experiments.arm_choice.chosen_names`."""
    return {name: arms[name] for name in chosen_names(arms, only)}


def command(name: str, options: Options) -> str:
    """What repeats an experiment of the catalogue."""
    length = "--quick" if options.quick else "--full"
    parts = [f"fastdat reproduce {name} {length}", *(f"--only {shlex.quote(part)}" for part in options.only)]
    parts += [f"--seeds {options.seeds}"] if options.seeds is not None else []
    parts += [] if options.compile else ["--no-compile"]
    return " ".join(parts)
