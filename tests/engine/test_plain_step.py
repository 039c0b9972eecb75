"""``d_step`` gives every argument to ``dat_step`` under its name, with a configuration that attacks nothing."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

import fastdat
from fastdat import DATConfig
from fastdat.engine import plain_step

OF_CONFIG = {"bounds", "power_iterations"}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[inspect.BoundArguments]:
    """The arguments of each call of ``dat_step`` that ``d_step`` makes."""
    calls: list[inspect.BoundArguments] = []
    signature = inspect.signature(fastdat.dat_step)

    def dat_step(*args: Any, **kwargs: Any) -> str:
        calls.append(signature.bind(*args, **kwargs))
        return "the result"

    monkeypatch.setattr(plain_step, "dat_step", dat_step)
    return calls


def test_each_argument_reaches_dat_step(received: list[inspect.BoundArguments]) -> None:
    d_step: Any = fastdat.d_step
    given: dict[str, Any] = {name: object() for name in inspect.signature(d_step).parameters}
    given |= {"bounds": [0.0, 255.0], "power_iterations": "per_forward"}
    assert d_step(**given) == "the result"
    (call,) = received
    config = DATConfig(real=False, fake=False, bounds=(0.0, 255.0), power_iterations="per_forward")
    handed_on = {name: value for name, value in given.items() if name not in OF_CONFIG}
    assert call.arguments == {**handed_on, "config": config}


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (-1.0, 2.0), None])
@pytest.mark.parametrize("power_iterations", ["once", "per_forward"])
def test_equal_settings_are_one_configuration(
    received: list[inspect.BoundArguments], bounds: Any, power_iterations: Any
) -> None:
    """It is the key of an engine, which need not be compared field by field."""
    for _ in range(2):
        fastdat.d_step(
            nn.Linear(1, 1), torch.ones(1), torch.ones(1), bounds=bounds, power_iterations=power_iterations
        )
    one, other = (call.arguments["config"] for call in received)
    assert one == DATConfig(real=False, fake=False, bounds=bounds, power_iterations=power_iterations)
    assert one is other


def test_defaults_are_those_of_dat_step_and_its_config() -> None:
    ours, theirs = (inspect.signature(step).parameters for step in (fastdat.d_step, fastdat.dat_step))
    assert [name for name in theirs if name != "config"] == [name for name in ours if name not in OF_CONFIG]
    for name, parameter in ours.items():
        expected = getattr(DATConfig(), name) if name in OF_CONFIG else theirs[name].default
        assert parameter.default == expected, name
