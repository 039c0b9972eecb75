"""``d_step``: the step without an attack, for regularizers alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from fastdat.config import NO_ATTACK, DATConfig, PowerIterations
from fastdat.engine.step import dat_step
from fastdat.engine.types import Args, AuxLoss, Tensors
from fastdat.info import DATInfo
from fastdat.losses import AnyLoss
from fastdat.regularizers.term import Bounds, Term


@overload
def d_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    loss: str | AnyLoss = ...,
    *,
    bounds: Bounds = ...,
    power_iterations: PowerIterations = ...,
    args_real: Args = ...,
    args_fake: Args = ...,
    regularizers: Sequence[Term] = ...,
    step: int | None = ...,
    generator: torch.Generator | None = ...,
    draws: Sequence[Tensors] | None = ...,
    aux_loss: AuxLoss | None = ...,
    compile: bool | str = ...,
    fold: bool = ...,
    microbatch: int | None = ...,
    with_info: Literal[False] = ...,
    check_finite: bool = ...,
) -> Tensor: ...
@overload
def d_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    loss: str | AnyLoss = ...,
    *,
    bounds: Bounds = ...,
    power_iterations: PowerIterations = ...,
    args_real: Args = ...,
    args_fake: Args = ...,
    regularizers: Sequence[Term] = ...,
    step: int | None = ...,
    generator: torch.Generator | None = ...,
    draws: Sequence[Tensors] | None = ...,
    aux_loss: AuxLoss | None = ...,
    compile: bool | str = ...,
    fold: bool = ...,
    microbatch: int | None = ...,
    with_info: Literal[True],
    check_finite: bool = ...,
) -> tuple[Tensor, DATInfo]: ...
def d_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    loss: str | AnyLoss = "hinge",
    *,
    bounds: Bounds = (-1.0, 1.0),
    power_iterations: PowerIterations = "once",
    args_real: Args = (),
    args_fake: Args = (),
    regularizers: Sequence[Term] = (),
    step: int | None = None,
    generator: torch.Generator | None = None,
    draws: Sequence[Tensors] | None = None,
    aux_loss: AuxLoss | None = None,
    compile: bool | str = True,
    fold: bool = True,
    microbatch: int | None = None,
    with_info: bool = False,
    check_finite: bool = False,
) -> Tensor | tuple[Tensor, DATInfo]:
    """D's usual loss (Eq. 1) with regularizers, without an attack::

        loss = fastdat.d_step(D, xr, xf, "wgan", regularizers=(fastdat.regularizers.GP(),))
        loss.backward()

    It is ``dat_step`` with ``DATConfig(real=False, fake=False)``: the same engine, arguments, results and errors.

    Args:
        D, xr, xf, loss: as in ``dat_step``.
        bounds: range of the data, to which some regularizers clip what they move; None for data without bounds.
        power_iterations: of spectral norm, as in ``DATConfig``.
        args_real, args_fake, regularizers, step, generator, draws, aux_loss, compile, fold, microbatch, with_info,
            check_finite: as in ``dat_step``.
    """
    step_of: Any = dat_step  # whose overloads want to know with_info beforehand
    result: Tensor | tuple[Tensor, DATInfo] = step_of(
        D, xr, xf, _config(bounds, power_iterations), loss,
        args_real=args_real, args_fake=args_fake, regularizers=regularizers, step=step, generator=generator,
        draws=draws, aux_loss=aux_loss, compile=compile, fold=fold, microbatch=microbatch, with_info=with_info,
        check_finite=check_finite,
    )  # fmt: skip
    return result


def _config(bounds: Bounds, power_iterations: PowerIterations) -> DATConfig:
    if (bounds, power_iterations) == ((-1.0, 1.0), "once"):
        return NO_ATTACK
    return _made(tuple(bounds) if isinstance(bounds, list) else bounds, power_iterations)


@functools.lru_cache(maxsize=16)
def _made(bounds: Bounds, power_iterations: PowerIterations) -> DATConfig:
    return DATConfig(real=False, fake=False, bounds=bounds, power_iterations=power_iterations)
