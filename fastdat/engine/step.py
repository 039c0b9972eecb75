"""``dat_step``: the DAT step as a loss, computed with its gradients in one compiled graph.

A custom ``autograd.Function`` runs the graph in its forward pass. The graph computes the loss together with the
parameter gradients, for attacks of first and of second order alike. The Function keeps the gradients, and its backward
pass multiplies them by the incoming scalar. That is
what lets a doubly differentiated step compile: torch.compile cannot differentiate a compiled graph twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastdat.config import DEFAULT_CONFIG, DATConfig
from fastdat.engine import checks
from fastdat.engine.compile import Request, compile_mode, engine_for
from fastdat.engine.discriminator import structure_of
from fastdat.engine.distributed import batch_group, run_inside, unwrap
from fastdat.engine.microbatch import microbatched_step
from fastdat.engine.objective import attention_for
from fastdat.engine.spectral.normalise import bypassed, spectral_weights
from fastdat.engine.types import Args, AuxLoss, Batch, StepInputs, StepResult, StepSpec, Tensors
from fastdat.info import DATInfo, StepInfo
from fastdat.losses import Loss, get_loss


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
    group, world_size = batch_group(ddp)
    checks.check_discriminator(module)
    checks.check_batch(batch, world_size)
    checks.check_args(batch)
    checks.check_autocast(xr.device)
    checks.check_microbatch(microbatch, aux_loss is not None)
    if check_finite:
        checks.check_finite(batch)
    structure = structure_of(module)
    checks.check_layers(structure.modules, world_size)
    checks.check_device(structure.params, batch)
    wants_gradients = torch.is_grad_enabled()
    spec = StepSpec(
        config,
        get_loss(loss),
        spectral=spectral_weights(structure.modules),
        aliases=structure.aliases,
        batch=xr.shape[0] * world_size,
        group=group,
        inputs_wanted=tuple(
            name for name, x in (("xr", xr), ("xf", xf)) if wants_gradients and x.requires_grad
        ),
        with_info=with_info,
    )
    request = Request(module, structure, spec, aux_loss, compile_mode(compile), microbatch, fold)
    measured: list[StepInfo] = []
    evaluate = partial(_differentiable_loss, request, batch, measured)
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


def _differentiable_loss(request: Request, batch: Batch, measured: list[StepInfo]) -> Tensor:
    """The step's loss, attached to the parameters and inputs that want gradients; adds its record to ``measured``."""
    params: Tensors = {}
    if torch.is_grad_enabled():
        params = {name: p for name, p in request.structure.params.items() if p.requires_grad}
    wanted = params | {name: getattr(batch, name) for name in request.spec.inputs_wanted}

    def evaluate() -> tuple[Tensor, list[Tensor]]:
        result = _run(request, batch.detached(), trainable=params.keys())
        if result.info is not None:
            measured.append(result.info)
        return result.loss, [result.grads[name] for name in wanted]

    if not wanted:
        return evaluate()[0]
    loss: Tensor = _Step.apply(evaluate, *wanted.values())  # type: ignore[no-untyped-call]
    return loss


def _run(request: Request, batch: Batch, trainable: Collection[str]) -> StepResult:
    """Run the step on the engine that is made for requests like this one, and move D's buffers."""
    params, buffers = request.structure.params, request.structure.buffers
    inputs = StepInputs({}, {}, buffers, batch)
    for name, p in params.items():
        (inputs.trainable if name in trainable else inputs.frozen)[name] = p.detach()
    with _weights_cast_anew(batch.xr.device), attention_for(request.spec.config), torch.no_grad():
        engine = engine_for(request, inputs)
        inputs = inputs._replace(buffers={name: buffers[name] for name in engine.buffers})
        with bypassed(request.structure.modules, engine.spec.spectral):
            if request.microbatch is not None and request.microbatch < batch.xr.shape[0]:
                result = microbatched_step(
                    request.D, engine.spec, inputs, request.microbatch, engine.step, engine.attack_pass
                )
            else:
                result = engine.step(request.D, engine.spec, inputs, request.aux_loss)
        if result.buffers:
            torch._foreach_copy_([buffers[name] for name in result.buffers], list(result.buffers.values()))
    return result


def _weights_cast_anew(device: torch.device) -> AbstractContextManager[Any]:
    """Ambient autocast without its cache of cast weights, which would serve one pass's weights to the next."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.get_autocast_dtype(device.type), cache_enabled=False)
