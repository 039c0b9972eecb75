"""The DAT step as a pure function of tensors: what is compiled, differentiated and mapped over.

Read it next to ``fastdat.reference``, which computes the same with the plainest PyTorch. Here D is a function of its
weights (``torch.func.functional_call``), input gradients are ``torch.func.vjp``, and nothing is mutated.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastdat.engine.attack import AttackInfo, AttackResult, Measured, run_attack
from fastdat.engine.discriminator import Call, WholeBatchD, call_aux, call_both
from fastdat.engine.passes import zero_flow
from fastdat.engine.types import (
    AuxLoss,
    Batch,
    FromWholeBatch,
    Pair,
    StepInputs,
    StepResult,
    StepSpec,
    Tensors,
)
from fastdat.engine.weights import Weights
from fastdat.info import SideInfo, StepInfo
from fastdat.losses import discriminator_loss

Moved = tuple[Tensors, tuple[StepInfo, ...]]
"""New values of the buffers that a step moves, and its measurements if asked for, as ``torch.func`` takes them."""


def objective(
    D: nn.Module,
    spec: StepSpec,
    params: Tensors,
    buffers: Tensors,
    batch: Batch,
    aux_loss: AuxLoss | None = None,
    given: FromWholeBatch = FromWholeBatch(),  # noqa: B008 - it is immutable
) -> tuple[Tensor, Moved]:
    """D's loss on the perturbed samples (Eq. 8; Algorithm 1, line 10), a scalar to differentiate.

    Args:
        D: the discriminator, its spectral norm bypassed.
        spec: of the step.
        params: every parameter of D by name.
        buffers: u, v and the moving buffers by name, before the step.
        batch: the samples.
        aux_loss: a further loss of D on the clean batch, added; it sees the weights of D's last call.
        given: what the whole batch has decided, where this one is a part of it.

    Returns:
        loss, (new values of the moving buffers, measurements if asked for).
    """
    config, loss = spec.config, spec.loss
    weights = Weights(spec, params, buffers, in_full=aux_loss is not None)
    moving = {name: buffers[name] for name in spec.moving}
    perturbed = batch if given.x_hat is None else batch.replaced(*given.x_hat)
    attack: AttackResult | None = None
    if config.attacks and given.x_hat is None:
        attack = run_attack(spec, WholeBatchD(D, spec, moving), weights, batch, given.signs)
        perturbed = attack.batch
        if config.clean_weight > 0:  # the loss contains the clean pass, which then moves running statistics
            moving = attack.buffers

    # The released code updates on the fakes first; only the order of the buffers' moves depends on it.
    fake_first = config.attacks and config.power_iterations == "per_forward"
    one, other = weights.next(True), weights.next(True)
    of_sides = (other, one) if fake_first else (one, other)
    real, fake, moving = call_both(D, spec, of_sides, moving, perturbed, fake_first)
    total = discriminator_loss(loss, real.logits, fake.logits)

    clean = Pair(real.logits, fake.logits) if attack is None else attack.clean
    if config.clean_weight > 0:  # DATT (Table III)
        w = config.clean_weight
        total = (total + w * discriminator_loss(loss, *clean)) / (1 + w)

    if aux_loss is not None:
        of_aux, moving = call_aux(D, aux_loss, weights.last(), moving, batch)
        total = total + of_aux

    info: tuple[StepInfo, ...] = ()
    if spec.with_info:
        info = (_info(batch, perturbed, (real, fake), clean, None if attack is None else attack.info),)
    return total, ({**weights.buffers(), **moving}, info)


def _info(
    batch: Batch, perturbed: Batch, calls: tuple[Call, Call], clean: Pair, attack: AttackInfo | None
) -> StepInfo:
    """Measurements of the step, detached; NaN where there was no attack."""
    nan = calls[0].logits.new_full((), torch.nan)
    unattacked = Measured(grad_norm=nan, clipped=nan, delta_rms=None)
    real, fake, penalty_fraction = attack or (unattacked, unattacked, nan)
    info = StepInfo(
        _side_info(batch.xr, perturbed.xr, calls[0], clean.real, real),
        _side_info(batch.xf, perturbed.xf, calls[1], clean.fake, fake),
        penalty_fraction,
    )
    detached: StepInfo = tree_map_only(Tensor, Tensor.detach, info)
    return detached


def _side_info(x: Tensor, x_hat: Tensor, call: Call, clean: Tensor, measured: Measured) -> SideInfo:
    delta_rms = measured.delta_rms
    if delta_rms is None:
        delta = x_hat - x
        delta_rms = delta.to(torch.promote_types(delta.dtype, torch.float32)).square().mean().sqrt()
    return SideInfo(
        logits=call.logits,
        clean_logits=clean,
        x_adv=x_hat,
        delta_rms=delta_rms,
        grad_norm=measured.grad_norm,
        clipped=measured.clipped,
        aux=call.extras,
    )


def step(
    D: nn.Module, spec: StepSpec, inputs: StepInputs, aux_loss: AuxLoss | None = None, traced: bool = True
) -> StepResult:
    """``objective`` and its gradient for the trainable parameters and for ``spec.inputs_wanted``.

    With ``traced`` the outer derivative is ``torch.func.grad``, which compiles. Without, it is autograd's, which
    in eager mode does not keep a graph of the backward pass alive.
    """
    trainable, frozen, buffers, batch, given = inputs
    wanted = {**trainable, **{name: getattr(batch, name) for name in spec.inputs_wanted}}

    def of(wanted: Tensors) -> tuple[Tensor, Moved]:
        params = {**frozen, **{name: wanted[name] for name in trainable}}
        samples = batch
        if spec.inputs_wanted:
            samples = batch.replaced(wanted.get("xr", batch.xr), wanted.get("xf", batch.xf))
        return objective(D, spec, params, buffers, samples, aux_loss, given)

    if not wanted:
        loss, (moved, info) = of({})
        return StepResult(loss, {}, moved, *info)
    if traced:
        grads, (loss, (moved, info)) = torch.func.grad_and_value(of, has_aux=True)(wanted)
        return StepResult(loss, grads, moved, *info)
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in wanted.items()}
        loss, (moved, info) = of(leaves)
        with zero_flow.skipping() if spec.config.second_order else nullcontext():
            found: Any = torch.autograd.grad(
                loss, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
    return StepResult(loss.detach(), dict(zip(leaves, found, strict=True)), moved, *info)
