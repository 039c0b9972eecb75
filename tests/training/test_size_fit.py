"""The model of time and memory: its constants from data that it made, and how well it predicts what it has not seen."""

from __future__ import annotations

import dataclasses

import pytest

from fastdat.training.iteration_cost import IterationCost
from fastdat.training.measured_sizes import shipped
from fastdat.training.size_fit import Sized, SizeFit, fitted, largest, left_out

CONSTANTS = SizeFit(2e-5, 3e-15, 5e-13, 7e8, 1.25)
COUNTS = [
    (100, 2e12, 1e10, 3e8, 5e7),
    (120, 9e12, 2e10, 8e8, 9e7),
    (700, 4e12, 7e10, 2e8, 6e7),
    (300, 8e13, 4e10, 4e9, 8e7),
    (500, 6e12, 9e11, 1e9, 7e7),
]


def made(constants: SizeFit) -> list[Sized]:
    """Measurements without noise."""
    found = []
    for i, (launches, flops, written, activations, fixed) in enumerate(COUNTS):
        cost = IterationCost(launches, flops, written, activations, fixed, 3e6, 0.0, 6, 0)
        images = 1e7 * (i + 1)
        found.append(Sized(str(i), cost, constants.seconds(cost), constants.held(cost) + images, images))
    return found


def test_seconds_and_bytes() -> None:
    cost = IterationCost(100, 2e12, 1e10, 3e8, 5e7, 3e6, 0.0, 6, 0)
    assert CONSTANTS.seconds(cost) == pytest.approx(2e-3 + 6e-3 + 5e-3, rel=1e-12)
    assert CONSTANTS.held(cost) == pytest.approx(7e8 + 5e7 + 3e6 + 3.75e8, rel=1e-12)


def test_the_constants_are_found() -> None:
    found = dataclasses.astuple(fitted(made(CONSTANTS)))
    assert found == pytest.approx(dataclasses.astuple(CONSTANTS), rel=1e-9)
    errors = left_out(made(CONSTANTS))
    assert list(errors) == ["0", "1", "2", "3", "4"]
    worst = largest(errors)
    assert max(worst.seconds, worst.held) < 1e-9


def test_no_constant_is_negative() -> None:
    """Plain least squares would give writing a negative time here."""
    found = fitted(made(dataclasses.replace(CONSTANTS, of_written=-1e-14)))
    assert found.of_written == 0
    assert found.of_flop > 0
    assert found.of_launch > 0


def test_errors_have_signs_and_the_largest_has_none() -> None:
    measured = made(CONSTANTS)
    measured[2] = dataclasses.replace(measured[2], seconds=2 * measured[2].seconds)
    errors = left_out(measured)
    assert errors["2"].seconds == pytest.approx(-0.5, abs=1e-9)
    assert largest({"2": errors["2"]}).seconds == pytest.approx(0.5, abs=1e-9)


def test_too_few() -> None:
    with pytest.raises(ValueError, match="a fit needs 3 measurements, got 2"):
        fitted(made(CONSTANTS)[:2])


@pytest.fixture(scope="module")
def measured() -> list[Sized]:
    """What was measured on the GPU."""
    return [m.sized() for m in shipped() if m.captured]


def test_each_measurement_is_predicted_from_the_others(measured: list[Sized]) -> None:
    assert len(measured) >= 8
    worst = largest(left_out(measured))
    assert worst.seconds <= 0.20
    assert worst.held <= 0.20


@pytest.mark.parametrize("net", ["cifar10", "lsun-bedroom"])
def test_a_net_is_predicted_from_the_other(measured: list[Sized], net: str) -> None:
    """Harder: another resolution, other widths, another share of pooled layers."""
    fit = fitted([m for m in measured if net not in m.name])
    for m in measured:
        if net in m.name:
            assert fit.seconds(m.cost) == pytest.approx(m.seconds, rel=0.20)
            assert fit.held(m.cost) + m.images == pytest.approx(m.held, rel=0.20)
