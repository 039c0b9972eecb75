"""The section "Conclusion": which group of runs is better, by how much, at equal steps, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.comparison import AllSeries, Comparison, compare, last_common_step, rank, standing
from fastdat.report.groups import Group, differing_settings
from fastdat.report.runs import RunRecord
from fastdat.report.score_names import ScoreName
from fastdat.report.score_table import Kind

#: How often two groups of equal distributions (normal ones) differ by more than the runs of either do, for so many
#: runs of both together: two and two, or two and three. With more runs it is one pair in twenty, or fewer.
_CHANCE = {4: "one pair in five", 5: "one pair in ten"}
_MOST_NAMED = 4  # settings or runs in a sentence; more are only counted


@dataclass(frozen=True)
class Conclusion:
    """What ``templates/conclusion.html`` shows.

    Args:
        headline: the answer in one sentence.
        remarks: how sure it is, what the groups differ in, and what is missing; one sentence or two each.
        progress: the runs that have not done all their steps; empty if there are none.
        score: the score that decided; None if there is none.
    """

    headline: str
    remarks: Sequence[str]
    progress: str
    score: ScoreName | None = None


def conclude(
    runs: Sequence[RunRecord],
    groups: Sequence[Group],
    all_series: AllSeries,
    names: Mapping[Kind, ScoreName],
) -> Conclusion:
    """The conclusion from the scores ``all_series`` of ``runs``, which form ``groups``."""
    progress = _progress(runs)
    if not any(all_series):
        whose = f"{runs[0].label} has" if len(runs) == 1 else "The runs have"
        return Conclusion(
            f"{whose} no scores yet.",
            [
                "The command fastdat eval RUN scores a run; with eval.every, fastdat train does so while it trains."
            ],
            progress,
        )
    if len(groups) == 1:
        return _alone(groups[0], all_series, names, progress)
    found = compare(groups, all_series)
    if found is None:
        headline, advice = _why_not(groups, all_series, names)
        return Conclusion(headline, [advice], progress)
    remarks = [
        *_others(found),
        *_earlier_step(found, all_series),
        *_later_scores(found, all_series, names),
        *_differences(runs, found),
        *_missing(groups, found),
    ]
    headline, spread = _verdict(found, names[found.kind].in_sentence)
    return Conclusion(headline, [spread, *remarks], progress, names[found.kind])


# --- two groups or more --------------------------------------------------------------------------------------------


def _verdict(found: Comparison, label: str) -> tuple[str, str]:
    """The headline, and a sentence on what the difference is measured against."""
    first, second = found.standings[:2]
    a, b, difference = _numbers(found)
    begin = f"At step {found.step:,}, "
    versus = f"{label}: {a} against {b} ({difference})"
    spread, error = found.seed_spread, found.error
    if found.difference == 0:
        headline = f"{begin}{first.title} and {second.title} have the same {label}: {a}."
    elif found.exceeds_spread and first.spread is not None and second.spread is not None:
        headline = f"{begin}{first.title} is better than {second.title} by {versus}."
    else:
        bound = None
        if spread is not None and not found.exceeds_spread:
            bound = "the spread of the seeds"
        elif error is not None and abs(found.difference) <= 2 * error:
            bound = "the error of the score"
        doubt = f", but the difference is not larger than {bound}" if bound else ""
        headline = f"{begin}{first.title} is ahead of {second.title} by {versus}{doubt}."
    return headline, _spread(found)


def _numbers(found: Comparison) -> tuple[str, str, str]:
    """Both means and their difference, rounded so that the sum is right and a difference is not rounded to zero."""
    decimals = _decimals(found)
    a, b = (round(place.mean, decimals) for place in found.standings[:2])
    return (
        f"{a:,.{decimals}f}",
        f"{b:,.{decimals}f}",
        f"{a - b:+,.{decimals}f}".replace("-", "\N{MINUS SIGN}"),
    )


def _decimals(found: Comparison) -> int:
    usual = found.kind.decimals(found.standings[1].mean) or 0
    difference = abs(found.difference)
    return max(usual, min(6, math.ceil(-math.log10(difference)))) if difference else usual


def _spread(found: Comparison) -> str:
    decimals = _decimals(found)
    places = found.standings[:2]
    single = [place.title for place in places if place.spread is None]
    if found.seed_spread is not None:
        several = [place.group.label for place in places if place.spread is not None]
        whose = "The seeds of one group" if len(several) == 2 else f"The seeds of {several[0]}"
        said = f"{whose} differ by up to {found.seed_spread:,.{decimals}f}."
        if single:
            return f"{said} {single[0]} has a single seed: another one may turn the order."
        chance = _CHANCE.get(sum(len(place.values) for place in places))
        if chance and found.exceeds_spread:
            said += f" So few seeds may mislead: of equal groups, {chance} differs by more than its seeds do."
        return said
    said = ""
    if found.error is not None:
        error = f"{2 * found.error:,.{decimals}f}"
        said = f"Twice the standard error of the difference is {error}. "
    return f"{said}One seed each gives no spread: other seeds may turn the order."


def _others(found: Comparison) -> list[str]:
    """The groups behind the first two."""
    places = [f"{place.title} {found.kind.text(place.mean)}" for place in found.standings[2:]]
    return [f"Behind them: {_list(places)}."] if places else []


def _earlier_step(found: Comparison, all_series: AllSeries) -> list[str]:
    """Says that the step of the comparison is not the last one."""
    latest = max(series[found.kind].steps[-1] for series in all_series if found.kind in series)
    if latest == found.step:
        return []
    return [
        f"Step {found.step:,} is the last with this score of all of them; some have later ones, up to {latest:,}."
    ]


def _later_scores(found: Comparison, all_series: AllSeries, names: Mapping[Kind, ScoreName]) -> list[str]:
    """Says that another score compares the groups at a later step: what decides is the score, then the step."""
    groups = [place.group for place in found.standings]
    ends = {kind: last_common_step(groups, kind, all_series) or 0 for kind in names if kind.better}
    if max(ends.values()) <= found.step:
        return []
    latest = min(ends, key=lambda kind: (-ends[kind], rank(kind)))
    return [
        f"{names[latest].label} was measured of all of them up to step {ends[latest]:,}; this conclusion is about "
        f"step {found.step:,}."
    ]


def _differences(runs: Sequence[RunRecord], found: Comparison) -> list[str]:
    keys = differing_settings([runs[place.group.members[0]] for place in found.standings])
    if not keys:  # nets of a user's own
        return ["Their settings are the same, as far as they are recorded."]
    if len(keys) > _MOST_NAMED:
        return [f"The settings differ in {len(keys)} places; see Configuration."]
    return [f"What differs in their settings: {_list(keys)}."]


def _missing(groups: Sequence[Group], found: Comparison) -> list[str]:
    compared = [place.group for place in found.standings]
    titles = [group.title for group in groups if group not in compared]
    return [f"Without this score at step {found.step:,}: {_list(titles)}."] if titles else []


# --- no comparison -------------------------------------------------------------------------------------------------


def _alone(group: Group, all_series: AllSeries, names: Mapping[Kind, ScoreName], progress: str) -> Conclusion:
    """One run: its last and its best score. One group: the mean and the range over its runs."""
    known = [kind for kind in names if kind.better]
    if not known:
        headline = f"{group.title} has scores, but it is not known whether more or less of them is better."
        return Conclusion(headline, [], progress)
    kind = min(known, key=rank)
    label = names[kind].in_sentence
    if not group.several:
        series = all_series[group.members[0]][kind]
        last, best = len(series.steps) - 1, series.best(kind)
        headline = f"{group.label} has {label} {series.text(kind, last)} at step {series.steps[last]:,}"
        if best is not None and series.values[best] != series.values[last]:
            headline += f"; its best was {series.text(kind, best)} at step {series.steps[best]:,}"
        elif last:
            headline += ", its best so far" if progress else ", its best"
        return Conclusion(f"{headline}.", [], progress, names[kind])
    step = last_common_step([group], kind, all_series)
    if step is None:
        step = max(step for series in all_series if kind in series for step in series[kind].steps)
    place = standing(group, kind, step, all_series)
    assert place is not None  # the step is one of this score's
    headline = f"At step {step:,}, {place.title} has {label} {kind.text(place.mean)}"
    if place.spread is not None:
        headline += f" on average, from {kind.text(min(place.values))} to {kind.text(max(place.values))}"
    return Conclusion(f"{headline}.", [], progress, names[kind])


def _why_not(
    groups: Sequence[Group], all_series: AllSeries, names: Mapping[Kind, ScoreName]
) -> tuple[str, str]:
    """Why no two groups can be compared, and what to do about it."""
    kinds = [{kind for i in group.members for kind in all_series[i]} for group in groups]
    scored = [(group, found) for group, found in zip(groups, kinds, strict=True) if found]
    if len(scored) == 1:
        return (
            f"No comparison yet: only {scored[0][0].title} has scores.",
            "Score the others in the same way, with the command fastdat eval RUN.",
        )
    for number, (one, of_one) in enumerate(scored):
        for two, of_two in scored[number + 1 :]:
            both = [kind for kind in names if kind in of_one & of_two and kind.better]
            if both:
                kind = min(both, key=rank)
                steps = " and ".join(f"{g.label} at {_steps(g, kind, all_series)}" for g in (one, two))
                return (
                    f"No comparison at equal steps: {names[kind].in_sentence} was measured of {steps}.",
                    "Score a checkpoint of an equal step, for example with fastdat eval RUN --checkpoint step-001000.",
                )
    (one, of_one), (two, of_two) = scored[:2]
    a, b = (_list([names[kind].in_sentence for kind in names if kind in of]) for of in (of_one, of_two))
    how = (
        f"{one.label} has {a}, {two.label} has {b}"
        if a != b
        else f"both have {a}, but see how each was measured"
    )
    return (
        f"No comparison: the scores were not measured in the same way; {how}.",
        "Score all of them with the same options of fastdat eval; the footnotes below the scores say how each was "
        "measured.",
    )


def _steps(group: Group, kind: Kind, all_series: AllSeries) -> str:
    steps = sorted(
        {step for i in group.members if kind in all_series[i] for step in all_series[i][kind].steps}
    )
    shown = ", ".join(f"{step:,}" for step in steps[-_MOST_NAMED:])
    return shown if len(steps) <= _MOST_NAMED else f"..., {shown}"


def _progress(runs: Sequence[RunRecord]) -> str:
    """The runs that have not done all their steps. Their folders do not say whether they still go on."""
    short = [
        f"{run.label} ({run.done:,} of {run.total:,} steps)"
        for run in runs
        if run.total is not None and run.done < run.total
    ]
    return f"In progress, or stopped early: {_list(short)}." if short else ""


def _list(words: Sequence[str]) -> str:
    """``a, b and c``; of many, the first ones and the number of the others."""
    if len(words) > _MOST_NAMED:
        words = [*words[: _MOST_NAMED - 1], f"{len(words) - _MOST_NAMED + 1} more"]
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
