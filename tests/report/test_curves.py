"""The lines of a chart."""

import numpy as np
import pytest

from fastdat.report.curves import Line, wants_log_scale, window


def line(values: list[float], **changes: bool) -> Line:
    return Line(0, list(range(len(values))), values, **changes)


def test_running_mean() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=400) * 3 + 7).tolist()
    x, mean = line(values).running_mean()
    half = window(400) // 2
    expected = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(400)]
    assert np.allclose(mean, expected, rtol=1e-12, atol=0)
    assert x.tolist() == list(range(400))


def test_running_mean_of_a_constant_is_that_constant() -> None:
    """A rounding error of 1e-17 would fill a chart whose axis fits its values."""
    assert set(line([2e-4] * 1000).running_mean()[1]) == {2e-4}


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (149, 3), (150, 3), (250, 5), (1000, 21)])
def test_windows_are_odd(count: int, expected: int) -> None:
    assert window(count) == expected


def test_long_line_keeps_its_extremes() -> None:
    values = [0.0] * 100_000
    values[12_345], values[54_321] = 5.0, -5.0
    x, y = line(values).points()
    assert len(x) <= 602
    assert {(12_345, 5.0), (54_321, -5.0)} <= set(zip(x, y, strict=True))
    assert (x[0], x[-1]) == (0, 99_999)
    assert list(x) == sorted(x)


def test_few_values_are_not_smoothed() -> None:
    assert not line([1.0] * 19).smoothed
    assert line([1.0] * 20).smoothed
    assert not line([1.0] * 20, smooth=False).smoothed


@pytest.mark.parametrize(
    ("values", "log"),
    [([1, 10], False), ([1, 10.1], True), ([0, 100], False), ([-1, 100], False), ([], False)],
)
def test_log_scale(values: list[float], log: bool) -> None:
    assert wants_log_scale([line(values)]) is log
