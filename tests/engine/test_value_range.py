"""The range of samples is compared with the bounds, and the message says how to bring one to the other."""

from __future__ import annotations

import pytest

from fastdat.engine.value_range import range_problem

UNIT = (-1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "bounds", "options"),
    [
        (-1.0, 1.0, UNIT, {}),
        (-0.5, 0.2, UNIT, {}),
        (-1.000001, 1.000001, UNIT, {}),
        (-1.01, 1.0, UNIT, {"tolerance": 0.01}),
        (0.0, 1.0, UNIT, {"generated": True}),
        (0.0, 0.0, UNIT, {}),  # no data has this range: it says nothing
        (0.0, 1.0, (0.0, 1.0), {}),
        (-1e9, 1e9, None, {}),
    ],
)
def test_right_ranges(low: float, high: float, bounds: tuple[float, float] | None, options: dict) -> None:
    assert range_problem("xr", low, high, bounds, **options) is None


@pytest.mark.parametrize(
    ("low", "high", "bounds", "says"),
    [
        (
            0.0,
            1.0,
            UNIT,
            ("xr has values in [0, 1]", "is [-1, 1]", "x * 2 - 1", "dat.bounds", "None for data"),
        ),
        (0.0, 1.05, UNIT, ("x * 2 - 1",)),
        (0.0, 255.0, UNIT, ("[0, 255]", "x / 127.5 - 1")),
        (-3.0, 3.0, UNIT, ("[-3, 3]", "scale the samples", "DATConfig.bounds (dat.bounds in a training")),
        (-1.1, 1.0, UNIT, ("[-1.1, 1]",)),
        (-1.0, 1.1, UNIT, ("[-1, 1.1]",)),
        (0.0, 5.0, (-5.0, 5.0), ("[0, 5]", "is [-5, 5]")),
        (-1.0, 1.0, (0.0, 1.0), ("is [0, 1]",)),
    ],
)
def test_wrong_ranges(low: float, high: float, bounds: tuple[float, float], says: tuple[str, ...]) -> None:
    problem = range_problem("xr", low, high, bounds)
    assert problem is not None
    for part in says:
        assert part in problem


def test_a_recipe_is_given_only_where_it_is_right() -> None:
    assert "127.5" not in str(range_problem("xr", 0.0, 300.0, UNIT))
    assert "* 2" not in str(range_problem("xr", 0.0, 1.0, (-2.0, 2.0)))
