"""Run a step and the reference on equal copies of D, and tell how far they are apart."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig, DATInfo


def gradients(D: nn.Module) -> Tensor:
    """All parameter gradients as one vector (P,); zeros where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in D.parameters()])


def relative_error(value: Tensor, expected: Tensor) -> float:
    """||value - expected|| / ||expected||."""
    return float((value.double() - expected.double()).norm() / expected.double().norm())


def rounding_bound(
    D: nn.Module, xr: Tensor, xf: Tensor, config: DATConfig, loss: Any, exact: Tensor, **arguments: Any
) -> float:
    """How far gradients in D's own precision, on its device, may be from ``exact`` (P,): three times as far as those
    of the eager reference are there, and 1e-5 at least. ``arguments`` are those of dat_step; D is left as it is.

    A reference that is off by more than float32 may be, with TF32 on say, is no measure: an AssertionError.
    """
    plain = copy.deepcopy(D)
    fastdat.reference.dat_step(plain, xr, xf, config, loss, **arguments).backward()
    error = relative_error(gradients(plain).to(exact.device), exact)
    assert error < 1e-4, f"the eager reference itself is off by {error:.2g}"
    return max(1e-5, 3 * error)


def assert_step_matches(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig,
    loss: Any = "hinge",
    *,
    tolerance: float,
    compile: bool | str = False,
    microbatch: int | None = None,
    reference_D: nn.Module | None = None,
    **arguments: Any,
) -> None:
    """Loss, parameter gradients, buffers and info of dat_step equal the reference's, the gradients to ``tolerance``.

    ``reference_D`` is the reference's D where it is not a copy of D: the same function in other operations.
    """
    ours, plain = copy.deepcopy(D), copy.deepcopy(D if reference_D is None else reference_D)
    expected, expected_info = fastdat.reference.dat_step(
        plain, xr, xf, config, loss, with_info=True, **arguments
    )
    expected.backward()
    value, info = fastdat.dat_step(
        ours, xr, xf, config, loss, compile=compile, microbatch=microbatch, with_info=True, **arguments
    )
    value.backward()

    assert gradients(plain).norm() > 1e-3, "this batch tests nothing"
    assert relative_error(gradients(ours), gradients(plain)) <= tolerance
    bound = 10 * max(tolerance, 1e-12)
    close = {"rtol": bound, "atol": bound, "equal_nan": True}
    torch.testing.assert_close(value, expected, **close)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer, **close)
    for field in fields(DATInfo):
        mine, theirs = getattr(info, field.name), getattr(expected_info, field.name)
        torch.testing.assert_close(mine, theirs, **close, msg=lambda m, name=field.name: f"info.{name}: {m}")
