"""``dat_step``: the DAT step as a loss, computed with its gradients in one compiled graph.

The graph computes the loss together with the parameter gradients, for attacks of first and of second order alike, and
the gradients wait for the backward pass (``known_gradients``). That is what lets a doubly differentiated step compile:
torch.compile cannot differentiate a compiled graph twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor, nn

from fastdat.config import DEFAULT_CONFIG, AttackConfig
from fastdat.engine import checks, sample_checks
from fastdat.engine.distributed import run_inside, unwrap
from fastdat.engine.known_gradients import attach
from fastdat.engine.prepared import Call, Prepared, calls_of, prepared_step
from fastdat.engine.terms import Turns, due, static, tensors_of
from fastdat.engine.types import Args, AuxLoss, Batch, Tensors, TermInputs
from fastdat.info import DATInfo, StepInfo
from fastdat.losses import AnyLoss
from fastdat.regularizers.term import Term


@overload
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: AttackConfig | None = ...,
    loss: str | AnyLoss = ...,
    *,
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
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: AttackConfig | None = ...,
    loss: str | AnyLoss = ...,
    *,
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
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: AttackConfig | None = None,
    loss: str | AnyLoss = "hinge",
    *,
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
    """D's loss on adversarially perturbed samples (Eqs. 8-10, Algorithm 1), in place of D's usual loss::

        loss = fastdat.dat_step(D, xr, xf)
        loss.backward()

    It works wherever a loss works: accumulation, clipping, any optimizer, ``no_grad``, autocast in bf16, D under
    DistributedDataParallel (the batch is then that of all ranks). D's mode and ``.grad`` stay as they were; u, v and
    running statistics move as they do in a plain step of D. Random numbers are drawn only if D or a regularizer draws
    them. The first call for a D, config and shape inspects D and compiles; a parameter the loss does not reach
    gets a gradient of zeros.

    Args:
        D: any module (N, ...) -> logits (N,) or (N, 1), or a tuple of tensors with the logits first.
        xr: real samples (m, ...), floating point in the range of ``config.bounds``.
        xf: fake samples, shape, dtype and device of ``xr``. Detach them from G unless their gradient is wanted.
        config: the attack's settings; ``DATConfig()`` where None. ``fastdat.regularizers.ASGAN`` and ``RobGAN`` are
            other attacks.
        loss: a name of ``fastdat.losses.LOSSES``, or an object with g1 and g2 (``fastdat.Loss``) or with pair
            (``fastdat.losses.PairLoss``).
        args_real, args_fake: further arguments of D (labels, say) for each side.
        regularizers: terms of ``fastdat.regularizers``, added to the loss in the same graph.
        step: number of this step, for regularizers that take part in one step of several.
        generator: of the regularizers' random numbers, on the samples' device; torch's own where None.
        draws: these random numbers themselves, ``term.draws(Pair(xr, xf), generator)`` of each regularizer whose turn
            it is; None: they are drawn.
        aux_loss: function (D, xr, xf) -> scalar, added to the loss in the same graph; it sees the clean batch and
            the weights of D's last call.
        compile: True, a mode of torch.compile, or False for eager, which takes any D that autograd takes (with
            activation checkpointing, say), and in second order waits for the device.
        fold: in a compiled step, reorder convolutions beside average pools and up-samplings so that they take less
            work; the results are the same up to rounding.
        microbatch: samples a side at a time; the loss and gradient stay those of the whole batch.
        with_info: return (loss, DATInfo) too.
        check_finite: refuse samples with NaN, Inf or values outside ``config.bounds``, and reals without a value
            below 0 where the bounds reach below it (images in [0, 1]). Waits for the device once.

    Returns:
        loss, a scalar whose ``backward()`` accumulates the gradients; a second derivative is an error.

    Raises:
        TypeError, ValueError: bad input; the message says what was given, expected, and what to do.
        NotImplementedError: a D that cannot be stepped exactly.
        RuntimeError: D could not be compiled as one graph.
    """
    checks.check_module(D, xr)
    turns = due(regularizers, step)
    without_tensors, weighed = static(turns.terms, turns.weights)
    call = Call(
        DEFAULT_CONFIG if config is None else config,
        loss,
        without_tensors,
        turns.names,
        weighed,
        aux_loss,
        compile,
        fold,
        microbatch,
        with_info,
    )
    batch = Batch(xr, xf, args_real, args_fake)
    value, measured = stepped(D, call, batch, turns, generator, draws, check_finite)
    return (value, DATInfo.of(*measured)) if with_info else value


def stepped(
    D: nn.Module,
    call: Call,
    batch: Batch,
    turns: Turns = Turns(),  # noqa: B008 - it is immutable
    generator: torch.Generator | None = None,
    draws: Sequence[Tensors] | None = None,
    check_values: bool = False,
) -> tuple[Tensor, list[StepInfo]]:
    """The loss, attached to the parameters and inputs that want gradients, and the measurements if asked for."""
    if torch.is_inference_mode_enabled():  # the attack needs autograd
        with torch.inference_mode(False), torch.no_grad():
            return stepped(D, call, batch, turns, generator, draws, check_values)
    sample_checks.check_tensors(batch)
    batch = sample_checks.outside_inference(batch)
    module, ddp = unwrap(D)
    checks.check_discriminator(module)
    calls = calls_of(module)
    with calls.lock:
        prepared = prepared_step(module, calls, ddp, call, batch)
        if check_values:
            sample_checks.check_values(batch, call.config)
        elif call.wiring is None and not calls.has_seen_values:
            calls.has_seen_values = True
            sample_checks.tell_values(batch, call.config)
        measured: list[StepInfo] = []
        of_terms = tensors_of(turns.terms, turns.weights, batch, generator, draws)
        evaluate = partial(_differentiable_loss, prepared, module, batch, call.aux_loss, of_terms, measured)
        if ddp is not None and call.wiring is None:  # a step of G has no gradient of D that DDP would average
            return run_inside(ddp, evaluate, batch.xr), measured
        return evaluate(), measured


def _differentiable_loss(
    prepared: Prepared,
    D: nn.Module,
    batch: Batch,
    aux_loss: AuxLoss | None,
    of_terms: TermInputs,
    measured: list[StepInfo],
) -> Tensor:
    """The step's loss, attached to the parameters and inputs that want gradients; adds its record to ``measured``."""

    def evaluate() -> tuple[Tensor, list[Tensor]]:
        result = prepared.run(D, batch.detached(), aux_loss, of_terms)
        if result.info is not None:
            measured.append(result.info)
        return result.loss, [result.grads[name] for name in prepared.wanted]

    leaves = prepared.leaves(batch)
    return attach(evaluate, leaves) if leaves else evaluate()[0]
