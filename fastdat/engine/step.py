"""``dat_step``: the DAT step as a loss, computed with its gradients in one compiled graph.

A custom ``autograd.Function`` runs the graph in its forward pass. The graph computes the loss together with the
parameter gradients, for attacks of first and of second order alike. The Function keeps the gradients, and its backward
pass multiplies them by the incoming scalar. That is
what lets a doubly differentiated step compile: torch.compile cannot differentiate a compiled graph twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastdat.config import DEFAULT_CONFIG, DATConfig
from fastdat.engine import checks
from fastdat.engine.distributed import run_inside, unwrap
from fastdat.engine.prepared import Call, Prepared, prepared_step
from fastdat.engine.types import Args, AuxLoss, Batch
from fastdat.info import DATInfo, StepInfo
from fastdat.losses import Loss


@overload
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = ...,
    loss: str | Loss = ...,
    *,
    args_real: Args = ...,
    args_fake: Args = ...,
    aux_loss: AuxLoss | None = ...,
    compile: bool | str = ...,
    fold: bool = ...,
    microbatch: int | None = ...,
    with_info: Literal[False] = ...,
    check_finite: bool = ...,
) -> Tensor: ...
@overload
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = ...,
    loss: str | Loss = ...,
    *,
    args_real: Args = ...,
    args_fake: Args = ...,
    aux_loss: AuxLoss | None = ...,
    compile: bool | str = ...,
    fold: bool = ...,
    microbatch: int | None = ...,
    with_info: Literal[True],
    check_finite: bool = ...,
) -> tuple[Tensor, DATInfo]: ...
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = None,
    loss: str | Loss = "hinge",
    *,
    args_real: Args = (),
    args_fake: Args = (),
    aux_loss: AuxLoss | None = None,
    compile: bool | str = True,
    fold: bool = True,
    microbatch: int | None = None,
    with_info: bool = False,
    check_finite: bool = False,
) -> Tensor | tuple[Tensor, DATInfo]:
    """D's loss on adversarially perturbed samples (Eqs. 8-10, Algorithm 1), in place of D's usual loss::

        loss = fastdat.dat_step(D, xr, xf)
        loss.backward()

    It works wherever a loss works: accumulation, clipping, any optimizer, ``no_grad``, autocast in bf16, D under
    DistributedDataParallel (the batch is then that of all ranks). D's mode and ``.grad`` stay as they were; u, v and
    running statistics move as they do in a plain step of D. Random numbers are drawn only if D draws them, anew in
    each pass. The first call for a D, config and shape inspects D and compiles; a parameter the loss does not reach
    gets a gradient of zeros.

    Args:
        D: any module (N, ...) -> logits (N,) or (N, 1), or a tuple of tensors with the logits first.
        xr: real samples (m, ...), floating point in the range of ``config.bounds``.
        xf: fake samples, shape, dtype and device of ``xr``. Detach them from G unless their gradient is wanted.
        config: the step's settings; ``DATConfig()`` where None.
        loss: ``"hinge"``, ``"gan"``, ``"lsgan"``, ``"wgan"`` or an object with g1 and g2 (``fastdat.Loss``).
        args_real, args_fake: further arguments of D (labels, say) for each side.
        aux_loss: function (D, xr, xf) -> scalar, added to the loss in the same graph; it sees the clean batch and
            the weights of D's last call.
        compile: True, a mode of torch.compile, or False for eager, which takes any D that autograd takes (with
            activation checkpointing, say), and in second order waits for the device.
        fold: in a compiled step, reorder convolutions beside average pools and up-samplings so that they take less
            work; the results are the same up to rounding.
        microbatch: samples a side at a time; the loss and gradient stay those of the whole batch.
        with_info: return (loss, DATInfo) too.
        check_finite: refuse NaN and Inf in xr, xf. Synchronises with the device.

    Returns:
        loss, a scalar whose ``backward()`` accumulates the gradients; differentiable once.

    Raises:
        TypeError, ValueError: bad input; the message says what was given, expected, and what to do.
        NotImplementedError: a D that cannot be stepped exactly.
        RuntimeError: D could not be compiled as one graph.
    """
    config = DEFAULT_CONFIG if config is None else config
    if not isinstance(config, DATConfig):
        raise TypeError(f"config must be a fastdat.DATConfig, got {type(config).__name__}")
    batch = Batch(xr, xf, args_real, args_fake)
    module, ddp = unwrap(D)
    prepared = prepared_step(
        module, ddp, Call(config, loss, aux_loss, compile, fold, microbatch, with_info), batch
    )
    if check_finite:
        checks.check_finite(batch)
    measured: list[StepInfo] = []
    evaluate = partial(_differentiable_loss, prepared, module, batch, aux_loss, measured)
    value = evaluate() if ddp is None else run_inside(ddp, evaluate, xr)
    return (value, DATInfo.of(*measured)) if with_info else value


# --- the autograd.Function -----------------------------------------------------------------------------------------


class _Step(torch.autograd.Function):
    """A loss whose gradients are known: they come with it."""

    @staticmethod
    def forward(ctx: Any, evaluate: Callable[[], tuple[Tensor, list[Tensor]]], *wanted: Tensor) -> Tensor:
        loss, grads = evaluate()
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(ctx.saved_tensors, grad_loss)


def _differentiable_loss(
    prepared: Prepared, D: nn.Module, batch: Batch, aux_loss: AuxLoss | None, measured: list[StepInfo]
) -> Tensor:
    """The step's loss, attached to the parameters and inputs that want gradients; adds its record to ``measured``."""

    def evaluate() -> tuple[Tensor, list[Tensor]]:
        result = prepared.run(D, batch.detached(), aux_loss)
        if result.info is not None:
            measured.append(result.info)
        return result.loss, [result.grads[name] for name in prepared.wanted]

    leaves = prepared.leaves(batch)
    if not leaves:
        return evaluate()[0]
    loss: Tensor = _Step.apply(evaluate, *leaves)  # type: ignore[no-untyped-call]
    return loss
