"""The parts of the host's time: they add up to the call without its graph, and stages of two calls do not mix."""

from __future__ import annotations

import pytest

from bench.host import host_parts
from bench.host.host_parts import (
    AFTER,
    BACKWARD,
    BEFORE,
    FLOOR,
    PREPARED,
    REST,
    STEP,
    UNCHANGED,
    HostCost,
    Marks,
    microseconds,
    parts_of,
)
from bench.timing.interleaved import Timing

CALL = Marks(
    step=(1.0, 60.0),
    prepared=(2.0, 9.0),
    unchanged=(4.0, 7.0),
    call=(11.0, 50.0),
    graph=(16.0, 40.0),
    backward=(60.0, 73.0),
)


def slower(call: Marks, factor: float) -> Marks:
    return Marks(*[(factor * start, factor * end) for start, end in call])


def test_parts_add_up_to_the_call_without_its_graph() -> None:
    parts = parts_of(CALL)
    assert parts == {
        PREPARED: 7.0,
        UNCHANGED: 3.0,
        BEFORE: 5.0,
        AFTER: 10.0,
        REST: 1.0 + 2.0 + 10.0,
        STEP: 59.0 - 24.0,
        BACKWARD: 13.0,
    }
    assert parts[STEP] == parts[PREPARED] + parts[BEFORE] + parts[AFTER] + parts[REST]


@pytest.mark.parametrize("stage", ["prepared", "unchanged", "call", "graph"])
def test_a_stage_of_an_earlier_call_is_an_error(stage: str) -> None:
    with pytest.raises(ValueError, match="out of order"):
        parts_of(CALL._replace(**{stage: (0.25, 0.5)}))


def test_minimum_and_median_are_taken_part_by_part_in_microseconds() -> None:
    cost = HostCost.of_calls("DAT", [slower(CALL, f) for f in (3e-6, 1e-6, 4e-6, 2e-6, 9e-6)], [5e-6, 4e-6])
    assert microseconds(cost.parts[PREPARED]) == pytest.approx({"n": 5, "min_us": 7.0, "median_us": 21.0})
    assert microseconds(cost.parts[FLOOR]) == pytest.approx({"n": 2, "min_us": 4.0, "median_us": 4.5})


def test_table_has_a_column_for_each_step_and_a_row_for_each_operator() -> None:
    first, second = (
        HostCost.of_calls(name, [slower(CALL, f * 1e-6) for f in (1, 2, 4)], [4e-6])
        for name in ("DAT", "DAT second order")
    )
    operator = HostCost("spectral_norm", {"forward": Timing([8e-6]), "backward": Timing([7e-6, 9e-6])})
    head, *rows = host_parts.tables([first, second, operator])
    assert head.split() == ["minimum", "/", "median", "us", "DAT", "DAT", "second", "order"]
    cells = {row[:28].strip(): row[28:].split() for row in rows}
    assert cells["prepared"] == ["7.0", "/", "14.0"] * 2
    assert cells["of it D unchanged"] == ["3.0", "/", "6.0"] * 2
    assert cells["dat_step"] == ["35.0", "/", "70.0"] * 2
    assert cells["its floor"] == ["4.0", "/", "4.0"] * 2
    assert cells["spectral_norm forward"] == ["8.0", "/", "8.0"]
    assert cells["spectral_norm backward"] == ["7.0", "/", "8.0"]
    assert len(rows) == 8 + 2


def test_a_table_of_operators_alone_has_no_head() -> None:
    (row,) = host_parts.tables([HostCost("spectral_norm", {"forward": Timing([8e-6])})])
    assert row.split() == ["spectral_norm", "forward", "8.0", "/", "8.0"]
