"""The axes of a chart: which values they span, and where their ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

_CONSTANT = 0.01  # of the greatest absolute value: a smaller range of values counts as a constant
_GREATEST = 1e300  # greater values are drawn at the edge, so that no difference overflows
_LEAST = 1e-300  # smaller values are drawn as zero, or at a logarithmic axis' edge: no quotient is zero
_POWERS = 305  # of ten, from the least end of a logarithmic axis to 1, and from 1 to its greatest
_MARGIN = 0.05  # of the range of values, at both ends


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis.

    Args:
        low, high: the values at its ends.
        log: whether it is logarithmic; ``low`` is then positive.
        whole: whether its ticks are whole numbers only; many thousands are then ``20k``.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def position(self, value: float) -> float:
        """Where ``value`` is, from 0 (``low``) to 1 (``high``); values outside are moved to the nearer end."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        inside = min(max(value, self.low), self.high)
        return (self._scaled(inside) - low) / (high - low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Position and text of at most ``most`` (2 or more) ticks at round values."""
        values = self._log_values(most) if self.log else self._linear_values(most)
        return [(self.position(value), text) for value, text in values]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _linear_values(self, most: int) -> list[tuple[float, str]]:
        smallest = max((self.high - self.low) / most, 1.0 if self.whole else 0.0)
        power = math.floor(math.log10(smallest))
        step, exponent = next(
            (digit, power + more)
            for more in (0, 1, 2)
            for digit in (1, 2, 5)
            if digit * 10.0 ** (power + more) >= smallest
            and self._count(digit * 10.0 ** (power + more)) <= most
        )
        size = step * 10.0**exponent
        first = math.ceil(self.low / size - 1e-9)
        numbers = range(first, first + self._count(size))
        if self.whole and exponent >= 3 and self.high >= 10_000:
            return [
                (number * size, number_text(number * size / 1000, 0) + "k" * (number > 0))
                for number in numbers
            ]
        return [(number * size, number_text(number * size, -exponent)) for number in numbers]

    def _count(self, size: float) -> int:
        return math.floor(self.high / size + 1e-9) - math.ceil(self.low / size - 1e-9) + 1

    def _log_values(self, most: int) -> list[tuple[float, str]]:
        """Powers of ten, with 2 and 5 between them where there is room; every second or third power if there is not."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found: list[tuple[float, str]] = []
        for digits, every in (((1, 2, 5), 1), ((1, 3), 1), *(((1,), every) for every in range(1, 700))):
            found = [
                (digit * 10.0**power, number_text(digit * 10.0**power, -power))
                for power in range(first, last + 1)
                for digit in digits
                if power % every == 0 and self.low <= digit * 10.0**power <= self.high
            ]
            if len(found) <= most:
                break
        return found


def value_axis(low: float, high: float, *, log: bool = False) -> Axis:
    """The vertical axis for values from ``low`` to ``high``.

    A constant, or what varies by less than one per cent, gets an axis that begins at zero: it is drawn as a flat line,
    not as the noise of its last digits.
    """
    low, high = max(low, -_GREATEST), min(high, _GREATEST)
    if log:
        low = max(low, _LEAST)
        high = max(high, 10 * low)  # even if all values are smaller
        first, last = math.log10(low), math.log10(high)
        margin = _MARGIN * (last - first)
        return Axis(10.0 ** max(first - margin, -_POWERS), 10.0 ** min(last + margin, _POWERS), log=True)
    greatest = max(abs(low), abs(high))
    if greatest < _LEAST:
        return Axis(0.0, 1.0)
    if high - low < _CONSTANT * greatest:
        return Axis(0.0, 1.25 * high) if low > 0 else Axis(1.25 * low, 0.0)
    margin = _MARGIN * (high - low)
    # Margins do not cross zero: an axis for what is never negative shows no negative values.
    return Axis(
        0.0 if low >= 0 > low - margin else low - margin, 0.0 if high <= 0 < high + margin else high + margin
    )


def step_axis(low: int, high: int) -> Axis:
    """The horizontal axis for G steps; a single step is in its middle."""
    return Axis(low, high, whole=True) if high > low else Axis(low - 1, high + 1, whole=True)


def number_text(value: float, decimals: int) -> str:
    """``1,000``, ``0.25``, ``-2`` or ``5e-6`` with ``decimals`` decimals, unless that takes too many digits."""
    if value == 0:
        return "0"
    if decimals > 5 or abs(value) >= 1e7:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    else:
        text = f"{value:,.{max(0, min(decimals, 5))}f}"
    return text.replace("-", "\N{MINUS SIGN}")
