"""NaN and infinity are found and reported."""

from __future__ import annotations

import math

import pytest
import torch

from fastdat.training import NonFiniteError
from fastdat.training.finite import FiniteGuard, check_finite, infinite


def test_infinite_constants_are_allowed() -> None:
    """The mask of an attention layer is infinite from the start; another buffer must not become so."""
    net = torch.nn.Linear(2, 2)
    net.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
    net.register_buffer("mean", torch.zeros(2))
    constant = infinite({"netD": net})
    assert constant == {"netD.mask"}
    check_finite({"netD": net}, {}, 1, 2, apart_from=constant)
    net.mean[0] = math.inf
    with pytest.raises(NonFiniteError, match=r"1 of 3 tensors are affected, first netD.mean"):
        check_finite({"netD": net}, {}, 1, 2, apart_from=constant)


def test_the_guard_names_the_steps_since_the_last_check() -> None:
    net = torch.nn.Linear(2, 2)
    guard = FiniteGuard({"netG": net})
    guard.check({}, 3)
    with pytest.raises(NonFiniteError, match=r"between steps 4 and 5\nmeans over these steps: loss_d = nan"):
        guard.check({"loss_d": math.nan}, 5)
    guard.restart(7)
    with torch.no_grad():
        net.weight[0, 0] = math.inf
    guard.check({}, 7)  # no step since the checkpoint was loaded
    with pytest.raises(NonFiniteError, match=r"(?s)between steps 8 and 8.*first netG.weight"):
        guard.check({}, 8)
