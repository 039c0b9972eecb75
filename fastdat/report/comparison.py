"""Which group of runs is better: by which score, at which step, by how much, and against which spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.groups import Group
from fastdat.report.score_table import BETTER, INCEPTION, Kind, Series

AllSeries = Sequence[Mapping[Kind, Series]]

#: Which score decides, if the groups share several: the first of these (score, split), then the others by name.
ORDER = (
    ("fid", "test"),
    ("fid", "train"),
    ("kid", "test"),
    ("kid", "train"),
    ("is", None),
    ("modes", "train"),
)


@dataclass(frozen=True)
class Standing:
    """The scores of one group at one step. Runs that share a seed are copies, which say nothing about other seeds.

    Args:
        group: the group.
        values: one for each different seed: the mean over those of its runs that have the score.
        errors: of each value; None where it is unknown.
        runs: how many runs of the group have the score.
    """

    group: Group
    values: Sequence[float]
    errors: Sequence[float | None]
    runs: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The greatest difference between two of the seeds; None for a single one."""
        return max(self.values) - min(self.values) if len(self.values) > 1 else None

    @property
    def title(self) -> str:
        """``dcgan (2 seeds)``, or ``dcgan (1 of 2 seeds)`` if the others have no such score."""
        group = self.group
        if self.runs == len(group.members):
            return group.title
        return f"{group.label} ({self.runs} of {group.counted})"


@dataclass(frozen=True)
class Comparison:
    """Two or more groups by one score at one step.

    Args:
        kind: the score.
        step: at which it was measured.
        standings: of the groups that have it, the best first.
    """

    kind: Kind
    step: int
    standings: Sequence[Standing]

    @property
    def difference(self) -> float:
        """The mean of the best group minus that of the next."""
        return self.standings[0].mean - self.standings[1].mean

    @property
    def seed_spread(self) -> float | None:
        """By how much the seeds of one of these two groups differ at most; None if both have a single seed."""
        spreads = [place.spread for place in self.standings[:2] if place.spread is not None]
        return max(spreads, default=None)

    @property
    def exceeds_spread(self) -> bool:
        """Whether these two groups differ by more than the seeds of either; unknown, and so False, for single seeds."""
        return self.seed_spread is not None and abs(self.difference) > self.seed_spread

    @property
    def error(self) -> float | None:
        """The standard error of the difference of two single seeds; known for KID only."""
        errors = [place.errors[0] for place in self.standings[:2] if len(place.values) == 1]
        if self.kind.name != "kid" or len(errors) < 2 or None in errors:
            return None
        return math.hypot(*(error for error in errors if error is not None))


def compare(groups: Sequence[Group], all_series: AllSeries) -> Comparison | None:
    """The comparison that the page concludes with; None if no two groups share a score at an equal step.

    The score is the one that most groups share; of several such, the first by :func:`rank`. The step is the greatest at
    which all their runs have it, or if there is none, the greatest at which some run of each group has it.
    """
    best: tuple[tuple[object, ...], Comparison] | None = None
    for kind in {kind for series in all_series for kind in series if kind.better}:
        scored = [series[kind] for series in all_series if kind in series]
        for step in {step for series in scored for step in series.steps}:
            standings = [
                place for group in groups if (place := standing(group, kind, step, all_series)) is not None
            ]
            if len(standings) < 2:
                continue
            complete = sum(place.runs for place in standings) == len(scored)
            # The smallest key wins.
            key = (-len(standings), rank(kind), not complete, -step)
            if best is None or key < best[0]:
                standings.sort(key=lambda place: -place.mean * kind.better)
                best = key, Comparison(kind, step, standings)
    return best[1] if best else None


def rank(kind: Kind) -> tuple[object, ...]:
    """Sorts kinds by how much they say: FID before KID, test before train, Inception first, more images first."""
    named = (kind.name, kind.split)
    place = ORDER.index(named) if named in ORDER else len(ORDER) + list(BETTER).index(kind.name)
    counts = tuple(-(count or 0) for count in (kind.fakes, kind.reals))
    return (
        place,
        kind.extractor != INCEPTION,
        counts,
        kind.weights != "ema",
        kind.extractor,
        kind.weights,
        kind.split or "",
        kind.protocol,
    )


def standing(group: Group, kind: Kind, step: int, all_series: AllSeries) -> Standing | None:
    """The scores of a group at one step; None if none of its runs has any."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    for member, seed in zip(group.members, group.seeds, strict=True):
        series = all_series[member].get(kind)
        if series is not None and step in series.steps:
            i = list(series.steps).index(step)
            found.setdefault(seed, []).append((series.values[i], series.errors[i]))
    if not found:
        return None
    return Standing(
        group,
        values=[statistics.fmean(value for value, _ in copies) for copies in found.values()],
        # The mean over copies has the error of one of them: their errors are equal, not independent.
        errors=[copies[0][1] for copies in found.values()],
        runs=sum(map(len, found.values())),
    )


def last_common_step(groups: Sequence[Group], kind: Kind, all_series: AllSeries) -> int | None:
    """The greatest step at which all runs of ``groups`` that have this score have it; None if a group has none."""
    scored = [[all_series[i][kind] for i in group.members if kind in all_series[i]] for group in groups]
    if not all(scored):
        return None
    shared = set.intersection(*(set(series.steps) for of_group in scored for series in of_group))
    return max(shared, default=None)
