"""The host's time of a repeated call of ``dat_step`` and its ``backward()``, by part, and the table of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from bench.timing.interleaved import Timing

HOST_COSTS = pytest.StashKey[list["HostCost"]]()
"""Where a session keeps its measurements."""

PREPARED, UNCHANGED, BEFORE, AFTER, REST, STEP, BACKWARD, FLOOR = PARTS = (
    "prepared",
    "D unchanged",
    "call, before the graph",
    "call, after the graph",
    "rest of dat_step",
    "dat_step",
    "backward",
    "floor of backward",
)
"""Parts of a call; bench/README.md says what each is."""
_ROWS = {
    STEP: "dat_step",
    PREPARED: "  prepared",
    UNCHANGED: "    of it D unchanged",
    BEFORE: "  call, before the graph",
    AFTER: "  call, after the graph",
    REST: "  rest of dat_step",
    BACKWARD: "backward",
    FLOOR: "  its floor",
}
"""The rows of the table: a sum, and below it what it consists of."""

Span = tuple[float, float]
"""Seconds of one clock, at the start and at the end."""


class Marks(NamedTuple):
    """When the stages of one call ran. ``unchanged`` lies within ``prepared``, ``graph`` within ``call``, and all but
    ``backward`` within ``step``."""

    step: Span
    """``dat_step``."""
    prepared: Span
    """``prepared_step``."""
    unchanged: Span
    """``Snapshot.holds``."""
    call: Span
    """The compiled function."""
    graph: Span
    """Its compiled graph."""
    backward: Span
    """``loss.backward()``."""


def parts_of(marks: Marks) -> dict[str, float]:
    """Seconds of each part of one call but for the floor. The time inside the graph is in none of them.

    Raises:
        ValueError: the stages did not run one within the other, so some of them belong to another call.
    """
    step, prepared, unchanged, call, graph, backward = marks
    order = (
        step[0], prepared[0], unchanged[0], unchanged[1], prepared[1],
        call[0], graph[0], graph[1], call[1], step[1], backward[0], backward[1],
    )  # fmt: skip
    if any(a > b for a, b in pairwise(order)):
        raise ValueError(f"the stages of a call are out of order: {marks}")
    parts = {
        PREPARED: _length(prepared),
        UNCHANGED: _length(unchanged),
        BEFORE: graph[0] - call[0],
        AFTER: call[1] - graph[1],
        REST: _length(step) - _length(prepared) - _length(call),
    }
    parts[STEP] = parts[PREPARED] + parts[BEFORE] + parts[AFTER] + parts[REST]
    parts[BACKWARD] = _length(backward)
    return parts


def _length(span: Span) -> float:
    return span[1] - span[0]


@dataclass(frozen=True)
class HostCost:
    """The measurement of one kind of call."""

    name: str
    """Of the step or the operator."""
    parts: dict[str, Timing]
    """Seconds of each part, one number a call."""

    @classmethod
    def of_calls(cls, name: str, calls: Iterable[Marks], floor: list[float]) -> HostCost:
        """Of the calls of one step; ``floor``: seconds of the backward pass that torch cannot do without."""
        found = [parts_of(marks) for marks in calls]
        parts = {part: Timing([of_call[part] for of_call in found]) for part in PARTS if part != FLOOR}
        return cls(name, {**parts, FLOOR: Timing(floor)})


def microseconds(timing: Timing) -> dict[str, Any]:
    """Number of calls, and minimum and median in microseconds."""
    return {
        "n": len(timing.seconds),
        "min_us": min(timing.seconds) * 1e6,
        "median_us": timing.median * 1e6,
    }


def tables(costs: list[HostCost]) -> Iterator[str]:
    """A row for each part and a column for each step, then a row for each operator; microseconds."""
    steps = [cost for cost in costs if STEP in cost.parts]
    if steps:
        yield f"{'minimum / median us':28}" + "".join(f"{cost.name:>20}" for cost in steps)
        for part, title in _ROWS.items():
            yield f"{title:28}" + "".join(f"{_cell(cost.parts, part):>20}" for cost in steps)
    for cost in costs:
        if cost not in steps:
            for part in cost.parts:
                yield f"{f'{cost.name} {part}':28}{_cell(cost.parts, part):>20}"


def _cell(parts: Mapping[str, Timing], part: str) -> str:
    of_part = microseconds(parts[part])
    return f"{of_part['min_us']:.1f} / {of_part['median_us']:.1f}"
