"""Means of measurements, kept on the device."""

from __future__ import annotations

import math

import torch

from fastdat.training.meter import Meter


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


def test_nan_and_infinity_stay_in_the_mean() -> None:
    meter = Meter()
    for value in (1.0, math.nan, 1.0):
        meter.add({"a": torch.tensor(value)})
    assert math.isnan(meter.means()["a"])
    meter.clear()
    for value in (1.0, math.inf):
        meter.add({"a": torch.tensor(value)})
    assert meter.means()["a"] == math.inf
