"""Means of measurements, kept on the device."""

from __future__ import annotations

import math

import torch

from fastdat.training.meter import Meter
from tests.noted_operations import NotedOperations


def test_means_since_the_last_clear() -> None:
    meter = Meter()
    assert meter.means() == {}
    for value in (1.0, 2.0, 6.0):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)})
    assert meter.means() == meter.means() == {"a": 3.0, "b": -3.0}
    meter.clear()
    assert meter.means() == {}
    meter.add({"a": torch.tensor(5.0, requires_grad=True)})
    assert meter.means() == {"a": 5.0}


def test_a_name_counts_in_the_steps_that_have_it() -> None:
    """As of a regularizer that is part of one step in four."""
    meter = Meter()
    for step in range(7):
        of_term = {"term": torch.tensor(10.0 * step)} if step % 4 == 0 else {}
        meter.add({"loss": torch.tensor(float(step)), **of_term})
    assert meter.means() == {"loss": 3.0, "term": 20.0}
    other = Meter()
    other.load(meter.state(), torch.device("cpu"))
    for each in (meter, other):
        each.add({"loss": torch.tensor(11.0)})
        each.add({"loss": torch.tensor(4.0), "term": torch.tensor(-10.0)})
    assert meter.means() == other.means() == {"loss": 4.0, "term": 10.0}


def test_a_step_is_one_stack_and_one_addition() -> None:
    """Whose turn it is among the regularizers makes no difference."""
    meter = Meter()
    often, seldom = ({name: torch.ones(()) for name in names} for names in ("ab", "abc"))
    for values in (often, seldom):
        meter.add(values)
    with NotedOperations() as noted:
        for values in (often, seldom, often):
            meter.add(values)
    calls = [operation.overloadpacket.__name__ for operation in noted.found]
    assert [call for call in calls if call not in ("detach", "_to_copy")] == ["stack", "add_"] * 3


def test_nan_and_infinity_stay_in_the_mean() -> None:
    meter = Meter()
    for value in (1.0, math.nan, 1.0):
        meter.add({"a": torch.tensor(value)})
    assert math.isnan(meter.means()["a"])
    meter.clear()
    for value in (1.0, math.inf):
        meter.add({"a": torch.tensor(value)})
    assert meter.means()["a"] == math.inf
