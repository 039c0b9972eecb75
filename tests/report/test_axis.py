"""The axes of charts."""

import math
import random

import pytest

from fastdat.report.axis import Axis, number_text, step_axis, value_axis


@pytest.mark.parametrize(
    ("low", "high", "axis"),
    [
        (0.0, 0.0, (0.0, 1.0)),
        (2e-4, 2e-4, (0.0, 2.5e-4)),
        (10.0, 10.09, (0.0, 12.6125)),  # nearly constant
        (-4.0, -4.0, (-5.0, 0.0)),
        (10.0, 10.11, (10.0 - 0.0055, 10.11 + 0.0055)),
        (-1.0, 3.0, (-1.2, 3.2)),
        (0.01, 1.0, (0.0, 1.0495)),  # no margin below zero for what is never negative
        (-1.0, -0.01, (-1.0495, 0.0)),
        (0.0, 4.0, (0.0, 4.2)),
    ],
)
def test_value_axis(low: float, high: float, axis: tuple[float, float]) -> None:
    found = value_axis(low, high)
    assert (found.low, found.high) == pytest.approx(axis, abs=1e-12)
    assert not found.log


def test_constant_is_a_line_far_from_the_noise_of_its_digits() -> None:
    """On an axis that fits the values, 1e-9 would fill the chart."""
    axis = value_axis(0.4, 0.4 + 1e-9)
    assert axis.position(0.4) == pytest.approx(0.8)
    assert axis.position(0.4 + 1e-9) - axis.position(0.4) < 1e-8


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (value_axis(-1.0, 3.0), "\u22121 0 1 2 3"),
        (value_axis(2e-4, 2e-4), "0 0.0001 0.0002"),
        (value_axis(1e-7, 4e-7), "1e\u22127 2e\u22127 3e\u22127 4e\u22127"),
        (value_axis(0.0, 3e8), "0 1e8 2e8 3e8"),
        (value_axis(-2000.0, 1000.0), "\u22122,000 \u22121,000 0 1,000"),
        (value_axis(0.4, 0.6), "0.40 0.45 0.50 0.55 0.60"),
        (value_axis(0.2, 3.0, log=True), "0.2 0.5 1 2"),
        (value_axis(0.2, 20.0, log=True), "0.3 1 3 10"),
        (value_axis(1.0, 5e4, log=True), "1 10 100 1,000 10,000"),
        (value_axis(1e-30, 1.0, log=True), "1e\u221228 1e\u221221 1e\u221214 1e\u22127 1"),
        (step_axis(50, 3000), "1,000 2,000 3,000"),
        (step_axis(100, 100_000), "20k 40k 60k 80k 100k"),
        (step_axis(0, 50_000), "0 20k 40k"),
        (step_axis(1, 3), "1 2 3"),
        (step_axis(7, 7), "6 7 8"),
    ],
)
def test_ticks(axis: Axis, texts: str) -> None:
    assert " ".join(text for _, text in axis.ticks(5)) == texts


def test_positions() -> None:
    assert [Axis(2.0, 4.0).position(value) for value in (2.0, 2.5, 4.0, 1.0, 9.0)] == [
        0.0,
        0.25,
        1.0,
        0.0,
        1.0,
    ]
    assert Axis(0.1, 1000.0, log=True).position(1.0) == pytest.approx(0.25)
    assert (0.25, "1") in Axis(0.0, 4.0).ticks(5)


def test_any_values_have_a_few_ticks_in_order_and_inside() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        size = 10 ** rng.uniform(-300, 300)
        low, high = sorted(rng.uniform(-1, 1) * size * 10 ** rng.uniform(-3, 0) for _ in range(2))
        log = low > 0 and high > 10 * low
        for axis in (value_axis(low, high), *([value_axis(low, high, log=True)] if log else [])):
            for most in (4, 6):
                ticks = [at for at, _ in axis.ticks(most)]
                assert 1 <= len(ticks) <= most, (axis, ticks)
                assert ticks == sorted(set(ticks))
                assert all(-1e-9 <= at <= 1 + 1e-9 for at in ticks)


def test_values_whose_difference_overflows() -> None:
    axis = value_axis(-1.7e308, 1.7e308)
    assert [axis.position(value) for value in (-1.7e308, 0.0, 1.7e308)] == pytest.approx([0.0, 0.5, 1.0])
    assert all(math.isfinite(at) for at, _ in axis.ticks(6))


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e-310, 1.0), (5e-324, 1.7e308), (1e-300, 1e300), (5e-324, 1e-310), (1e-3, 1.7e308)],
)
def test_log_axis_of_any_positive_values(low: float, high: float) -> None:
    axis = value_axis(low, high, log=True)
    assert 0 < axis.low < axis.high < math.inf
    assert 0 <= axis.position(low) <= axis.position(high) <= 1
    assert 1 <= len(axis.ticks(5)) <= 5


def test_log_axis_has_a_margin() -> None:
    axis = value_axis(1e-3, 10.0, log=True)
    assert (axis.low, axis.high) == pytest.approx((1e-3 / 10**0.2, 10 * 10**0.2))


def test_values_too_small_to_divide_are_a_line_at_zero() -> None:
    axis = value_axis(-5e-324, 1e-310)
    assert (axis.low, axis.high) == (0.0, 1.0)
    assert axis.position(1e-310) == pytest.approx(0.0)
    assert [text for _, text in axis.ticks(3)] == ["0", "0.5", "1.0"]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1234.5, 1, "1,234.5"),
        (-0.25, 2, "\u22120.25"),
        (5e-6, 6, "5e\u22126"),
        (12.0, -1, "12"),
        (0.0, 9, "0"),
    ],
)
def test_number_text(value: float, decimals: int, text: str) -> None:
    assert number_text(value, decimals) == text
