"""Tables and sentences of a study of curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastdat.experiments.evidence.curve_groups import Group
from fastdat.experiments.evidence.curve_numbers import (
    TOLD_APART,
    Verdict,
    apart,
    band,
    best,
    compared,
    last,
    over_runs,
    score_of,
)
from fastdat.experiments.evidence.run_cost import Costs
from fastdat.experiments.images.image_study import diverged
from fastdat.experiments.images.study_texts import Found, number
from fastdat.experiments.images.thin_runs import KID
from fastdat.experiments.outcome import Column, ResultTable, Row, Runs, Value

SCORE, LAST, BEST = KID, "after the last step", "best"
DIFFERENCE, ERRORS = "difference", "in standard errors"
COMPILED, TIMES, EAGER = "seconds, compiled", "times the base", "seconds, eager"


def scores(found: Found, groups: Sequence[Group]) -> ResultTable:
    """Each arm's score and its difference to its group's base."""
    base = groups[0].label(groups[0].base)
    columns = (
        Column(SCORE, 3),
        Column(DIFFERENCE, 3),
        Column(ERRORS, 1),
        Column(LAST, 3),
        Column(BEST, 3),
    )
    rows = tuple(Row(arm.name, _cells(found, group, arm.name)) for group in groups for arm in group.arms)
    title = f"Mean over the second half of the training, and its difference to '{base}'"
    return ResultTable(title, "arm", columns, rows)


def _cells(found: Found, group: Group, arm: str) -> dict[str, Value]:
    runs, score, against = found[arm], score_of(found, arm), score_of(found, group.base)
    cells: dict[str, Value] = {SCORE: score, LAST: over_runs(runs, last), BEST: over_runs(runs, best)}
    if arm != group.base and isinstance(score, Runs) and isinstance(against, Runs):
        cells |= {DIFFERENCE: score.mean - against.mean, ERRORS: apart(score, against)}
    return cells


def over_training(found: Found, every: int) -> ResultTable:
    """The mean of each arm's scores at every ``every``-th step that was scored."""
    bands = {name: band(runs) for name, runs in found.items()}
    steps = sorted({step for of_arm in bands.values() for step in of_arm})[every - 1 :: every]
    rows = tuple(
        Row(name, {_step(step): of_arm[step][0] for step in steps if step in of_arm})
        for name, of_arm in bands.items()
    )
    return ResultTable("Mean score over the training", "arm", tuple(Column(_step(s)) for s in steps), rows)


def _step(step: int) -> str:
    return f"step {step:,}"


def costs(measured: Costs, found: Found, groups: Sequence[Group], steps: int) -> ResultTable:
    """Seconds of a run of ``steps`` steps, beside the score that they buy."""
    bases = {arm.name: group.base for group in groups for arm in group.arms}
    rows = []
    for name, cost in measured.of.items():
        cells: dict[str, Value] = {COMPILED: cost.compiled * steps, EAGER: cost.eager * steps}
        if base := measured.of.get(bases[name]):
            cells[TIMES] = cost.compiled / base.compiled
        rows.append(Row(name, cells | {SCORE: score_of(found, name)}))
    columns = (Column(COMPILED, 0), Column(TIMES, 2), Column(EAGER, 0), Column(SCORE, 3))
    title = f"Cost of a run of {steps:,} steps, without its scores and without compilation ({measured.where})"
    return ResultTable(title, "arm", columns, tuple(rows))


def findings(found: Found, groups: Sequence[Group]) -> Iterator[str]:
    """What the protocol's test says of each arm, beginning with those that are told apart from their base.

    The last one names the arms of which NaN or infinity ended a run.
    """
    said: dict[Verdict, list[str]] = {"lower": [], "higher": [], "not told apart": []}
    named: dict[Verdict, list[str]] = {key: [] for key in said}
    for group in groups:
        scored = {arm.name: score_of(found, arm.name) for arm in group.others}
        for key, arms in compared(scored, score_of(found, group.base)).items():
            said[key] += [f"{arm} {number(runs)}, {errors:+.1f}" for arm, (runs, errors) in arms.items()]
            named[key] += [f"{arm} ({errors:+.1f})" for arm, (_, errors) in arms.items()]
    if any(said.values()):
        base = groups[0].label(groups[0].base)
        lower, higher = (", ".join(named[key]) or "no arm" for key in ("lower", "higher"))
        yield (
            f"By {TOLD_APART:g} standard errors or more the KID is lower than that of '{base}' with {lower}, and "
            f"higher with {higher}; {len(said['not told apart'])} of {sum(map(len, said.values()))} arms cannot be "
            "told apart from it."
        )
        yield f"KID of '{base}': {'; '.join(_bases(found, groups))}."
    for key, listed in said.items():
        if listed:
            yield f"{key.capitalize()} (KID, difference in standard errors): {'; '.join(listed)}."
    ended = [f"{name}, {diverged(runs)}" for name, runs in found.items() if any(run.diverged for run in runs)]
    if ended:
        yield f"NaN or infinity ended runs of {'; '.join(ended)}. Means are those of the other runs."


def _bases(found: Found, groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        score = score_of(found, group.base)
        if score is not None:
            said = number(score) if isinstance(score, Runs) else str(score)
            yield f"{said} at {group.name}" if group.name else said
