"""Inductor is told the operators' requirements before it lowers a graph that contains one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastdat
from fastdat.engine import compile
from fastdat.kernels import inductor, operator

OPERATORS = {
    *("perturb_clip", "perturb_clip_stats", "perturb_clip_backward"),
    *("attack_coefficients", "spectral_norm", "spectral_norm_backward"),
}


def test_operators_take_their_arguments_from_memory() -> None:
    """Also in a process in which inductor has not seen them yet."""
    pytest.importorskip("triton")
    from torch._inductor import lowering

    from fastdat.kernels import attack_coefficients, perturb_clip, spectral_norm  # noqa: F401

    overloads = {name: made.overload for name, made in operator.OPERATORS.items()}
    assert set(overloads) == OPERATORS
    for op in overloads.values():
        lowering.lowerings.pop(op, None)
        lowering.needs_realized_inputs.discard(op)
    for _ in range(2):
        inductor.introduce_operators()
        assert all(op in lowering.lowerings for op in overloads.values())
        assert all(op in lowering.needs_realized_inputs for op in overloads.values())


@pytest.mark.parametrize("mode", [False, True], ids=["eager", "compiled"])
def test_a_step_introduces_them_where_it_is_compiled(mode: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    introduced = []
    monkeypatch.setattr(compile, "introduce_operators", lambda: introduced.append(True))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    D, x = nn.Linear(3, 1), torch.rand(4, 3)
    fastdat.dat_step(D, x, -x, compile=mode)
    assert bool(introduced) is mode
