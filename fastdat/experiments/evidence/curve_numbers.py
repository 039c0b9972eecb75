"""Numbers of a study of curves: what a run scored over its training, and how far two arms are apart.

A run's score is the mean of its scores in the second half of its training: a single one depends on the step at which it
is made.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from fastdat.experiments.images.image_study import Trained, is_own
from fastdat.experiments.images.study_texts import Found, standard_error, whole
from fastdat.experiments.outcome import Runs, Value
from fastdat.report.runs import is_number

SCORE, SPLIT = "kid", "train"
TOLD_APART = 3.0
"""Standard errors of a difference from which two arms are told apart."""

Verdict = Literal["lower", "higher", "not told apart"]
Curve = dict[int, float]
"""Step -> score."""


def curve(run: Trained) -> Curve:
    """A run's own scores over its training; if a step was scored twice, the later one counts."""
    return {
        line["step"]: float(line["scores"][SCORE])
        for line in run.scores
        if is_own(line, run, SPLIT) and is_number(line["scores"].get(SCORE))
    }


def late(run: Trained) -> float:
    """A run's score: the mean over the second half of its training."""
    return statistics.fmean(score for step, score in curve(run).items() if step > run.config.steps / 2)


def last(run: Trained) -> float:
    """The score after the last step."""
    return curve(run)[run.config.steps]


def best(run: Trained) -> float:
    """The lowest score."""
    return min(curve(run).values())


def over_runs(runs: Sequence[Trained], number: Callable[[Trained], float]) -> Value:
    """A number of each run that reached its last step, as a cell; ``"diverged"`` if none of them did."""
    values = tuple(map(number, whole(runs)))
    if values:
        return Runs(values)
    return "diverged" if runs else None


def score_of(found: Found, arm: str) -> Value:
    """The scores of an arm's runs, as a cell; None where the arm was not trained."""
    return over_runs(found.get(arm, ()), late)


def compared(values: Mapping[str, Value], base: Value) -> dict[Verdict, dict[str, tuple[Runs, float]]]:
    """What the protocol's test says of several arms.

    Args:
        values: arm -> its scores.
        base: the scores of the arm that they are compared with.

    Returns:
        Verdict -> arm -> its scores and :func:`apart`. An arm that cannot be compared has no place in it.
    """
    found: dict[Verdict, dict[str, tuple[Runs, float]]] = {"lower": {}, "higher": {}, "not told apart": {}}
    for arm, scores in values.items():
        errors = apart(scores, base)
        if isinstance(scores, Runs) and errors is not None:
            found[verdict(errors)][arm] = scores, errors
    return found


def apart(runs: Value, base: Value) -> float | None:
    """The difference of two means in its standard errors (Welch), negative where ``runs`` is lower.

    None where one side has fewer than two runs, or neither has any spread.
    """
    if not isinstance(runs, Runs) or not isinstance(base, Runs):
        return None
    error = standard_error(runs, base)
    return (runs.mean - base.mean) / error if error else None


def verdict(errors: float) -> Verdict:
    """What :func:`apart` says by the protocol's test."""
    if abs(errors) < TOLD_APART:
        return "not told apart"
    return "lower" if errors < 0 else "higher"


def median_run(runs: Sequence[Trained]) -> Trained | None:
    """The run whose score is the median, of an even number the better of both middle ones; None if all diverged."""
    ordered = sorted(whole(runs), key=late)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def band(runs: Sequence[Trained]) -> dict[int, tuple[float, float]]:
    """Mean and sample standard deviation of the scores at each step, over the runs that reached their last step."""
    curves = list(map(curve, whole(runs)))
    found = {}
    for step in sorted(set[int]().union(*curves)):
        scores = [scored[step] for scored in curves if step in scored]
        found[step] = statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
    return found
