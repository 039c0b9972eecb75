"""The DAT step as a pure function of tensors: what is compiled, differentiated and mapped over.

Read it next to ``fastdat.reference``, which computes the same with the plainest PyTorch. Here D is a function of its
weights (``torch.func.functional_call``), and nothing is mutated.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from fastdat.engine.attack import (
    AttackInfo,
    AttackResult,
    BatchedD,
    Measured,
    clean_sides,
    is_one_sided,
    run_attack,
)
from fastdat.engine.discriminator import Call, WholeBatchD, call_aux, call_both, holding
from fastdat.engine.generator_objective import generator_objective
from fastdat.engine.passes import zero_flow
from fastdat.engine.points import StepPoints, Ways
from fastdat.engine.recomputation import held_in_last_backward
from fastdat.engine.sign_attack import run_sign_attack
from fastdat.engine.spectral.normalise import is_bypassed
from fastdat.engine.terms import regularization
from fastdat.engine.types import (
    AuxLoss,
    Batch,
    FromWholeBatch,
    StepInputs,
    StepResult,
    StepSpec,
    Tensors,
    TermInputs,
)
from fastdat.engine.weights import Weights
from fastdat.info import SideInfo, StepInfo
from fastdat.losses import discriminator_loss
from fastdat.regularizers.sign_attacks import SignAttack
from fastdat.regularizers.term import Pair

Moved = tuple[Tensors, tuple[Tensors, ...], tuple[StepInfo, ...]]
"""New values of the buffers that a step moves and of the terms' tensors, and its measurements if asked for, as
``torch.func`` takes them."""

Arguments = tuple[Weights, Tensors, Batch]
"""``weights``, ``moving`` and ``batch`` of ``objective``."""


def objective(
    D: nn.Module,
    spec: StepSpec,
    weights: Weights,
    moving: Tensors,
    batch: Batch,
    aux_loss: AuxLoss | None = None,
    given: FromWholeBatch = FromWholeBatch(),  # noqa: B008 - it is immutable
    of_terms: TermInputs = TermInputs(),  # noqa: B008 - it is immutable
) -> tuple[Tensor, Moved]:
    """D's loss on the perturbed samples (Eq. 8; Algorithm 1, line 10), a scalar to differentiate.

    Args:
        D: the discriminator, its spectral norm bypassed.
        spec: of the step.
        weights: D's weights call by call.
        moving: the moving buffers by name, before the step.
        batch: the samples.
        aux_loss: a further loss of D on the clean batch, added; it sees the weights of D's last call.
        given: what the whole batch has decided, where this one is a part of it.
        of_terms: the tensors of the regularizers.

    Returns:
        loss, (new values of the moving buffers, of the terms' tensors, measurements if asked for).
    """
    config, loss, before = spec.config, spec.loss, moving
    perturbed = batch if given.x_hat is None else batch.replaced(*given.x_hat)
    attack: AttackResult | None = None
    if config.attacks and given.x_hat is None:
        attack = attacked(D, spec, weights, moving, batch, given.signs)
        perturbed = attack.batch
        if config.clean_weight > 0:  # the loss contains the clean pass, which then moves running statistics
            moving = attack.buffers

    # The released code updates on the fakes first; only the order of the buffers' moves depends on it.
    fake_first = config.attacks and config.power_iterations == "per_forward"
    one, other = weights.next(True), weights.next(True)
    of_sides = (other, one) if fake_first else (one, other)
    at_clean = None if attack is None else attack.at_clean
    if not config.attacks and (any(spec.needs.gradient) or spec.needs.loss_gradient):
        whole = WholeBatchD(D, spec, moving)
        at_clean = whole.linearise(of_sides, batch, clean_sides(spec), apart=is_one_sided(spec))
        (real, fake), moving = at_clean.calls, at_clean.buffers
    else:
        real, fake, moving = call_both(D, spec, of_sides, moving, perturbed, fake_first)
    total = discriminator_loss(loss, real.logits, fake.logits)

    clean = Pair(real.logits, fake.logits)
    if attack is not None:
        clean = Pair(*[now if seen is None else seen for seen, now in zip(attack.clean, clean, strict=True)])
    if config.clean_weight > 0:  # DATT (Table III)
        w = config.clean_weight
        total = (total + w * discriminator_loss(loss, *clean)) / (1 + w)

    if aux_loss is not None:
        of_aux, moving = call_aux(D, aux_loss, weights.last(), moving, batch)
        for capture in spec.captures:  # nobody takes it: the graph need not give it out
            capture.found.clear()
        total = total + of_aux

    states: tuple[Tensors, ...] = ()
    of_info: Tensors = {}
    if spec.terms:
        clean_calls = None if config.attacks else (real, fake)
        if at_clean is not None:
            clean_calls = at_clean.calls
        gradients = (None, None) if attack is None else attack.gradients
        ways = Ways(D, spec, weights, before, batch, (real, fake), clean_calls, at_clean, gradients)
        of_all, states, of_info = regularization(spec, StepPoints(ways, given.reductions), of_terms)
        total = total + of_all

    info: tuple[StepInfo, ...] = ()
    if spec.with_info:
        of_attack = None if attack is None else attack.info
        info = (_info(batch, perturbed, (real, fake), clean, of_attack, of_info),)
    return total, ({**weights.buffers(), **moving}, states, info)


def attacked(
    D: nn.Module,
    spec: StepSpec,
    weights: Weights,
    moving: Tensors,
    batch: Batch,
    signs: tuple[Pair, ...] = (),
) -> AttackResult:
    """The attack of the step on this batch, with ``signs`` where the whole batch has decided them."""
    if isinstance(spec.config, SignAttack):
        running = WholeBatchD(D, spec, moving)
        in_eval_mode = spec.config.in_eval_mode
        attacking: BatchedD = WholeBatchD(D, spec, moving, in_eval_mode) if in_eval_mode else running
        return run_sign_attack(spec, attacking, weights, batch, running)
    return run_attack(spec, WholeBatchD(D, spec, moving), weights, batch, signs)


def _info(
    batch: Batch,
    perturbed: Batch,
    calls: tuple[Call, Call],
    clean: Pair,
    attack: AttackInfo | None,
    of_terms: Tensors,
) -> StepInfo:
    """Measurements of the step, detached; NaN where there was no attack."""
    nan = calls[0].logits.new_full((), torch.nan)
    unattacked = Measured(grad_norm=nan, clipped=nan, delta_rms=None)
    real, fake, penalty_fraction = attack or (unattacked, unattacked, nan)
    info = StepInfo(
        _side_info(batch.xr, perturbed.xr, calls[0], clean.real, real),
        _side_info(batch.xf, perturbed.xf, calls[1], clean.fake, fake),
        penalty_fraction,
        of_terms,
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


def step(D: nn.Module, spec: StepSpec, inputs: StepInputs, aux_loss: AuxLoss | None = None) -> StepResult:
    """``objective`` and its gradient for the trainable parameters and for ``spec.inputs_wanted``.

    Where ``spec.traced`` both derivatives are those of ``torch.func``, which compile. Else they are autograd's, which
    in eager mode take any D and do not keep a graph of the backward pass alive.
    """
    return _traced_step(D, spec, inputs, aux_loss) if spec.traced else _eager_step(D, spec, inputs, aux_loss)


def attention_for(spec: StepSpec) -> AbstractContextManager[None]:
    """Where a step runs, compilation included. In second order ``scaled_dot_product_attention`` is made of plain
    operations there, since its fast kernels have no second derivative.

    Not a part of the graph: a compilation that fails would leave it on. PyTorch has one switch for all threads.
    """
    return sdpa_kernel(SDPBackend.MATH) if spec.differentiates_gradient else nullcontext()


def _wanted(spec: StepSpec, inputs: StepInputs) -> Tensors:
    """What the gradient is wanted for, by name."""
    return {**inputs.trainable, **{name: getattr(inputs.batch, name) for name in spec.inputs_wanted}}


def _with(spec: StepSpec, inputs: StepInputs, wanted: Tensors, aux_loss: AuxLoss | None) -> Arguments:
    """The arguments ``weights``, ``moving`` and ``batch`` of ``objective``, with ``wanted`` in their places."""
    params = {**inputs.frozen, **{name: wanted[name] for name in inputs.trainable}}
    weights = Weights(spec, params, inputs.buffers, in_full=aux_loss is not None)
    batch = inputs.batch
    if spec.inputs_wanted:
        batch = batch.replaced(wanted.get("xr", batch.xr), wanted.get("xf", batch.xf))
    return weights, {name: inputs.buffers[name] for name in spec.moving}, batch


def _evaluated(
    D: nn.Module, spec: StepSpec, inputs: StepInputs, arguments: Arguments, aux_loss: AuxLoss | None
) -> tuple[Tensor, Moved]:
    """The loss to differentiate: of D, or of G."""
    if spec.wiring is None:
        return objective(D, spec, *arguments, aux_loss, inputs.given, inputs.terms)
    loss, moved = generator_objective(D, spec, *arguments, aux_loss)
    return loss, (moved, (), ())


def _traced_step(D: nn.Module, spec: StepSpec, inputs: StepInputs, aux_loss: AuxLoss | None) -> StepResult:
    if not is_bypassed(D, spec.spectral):
        raise RuntimeError("D's own spectral norm is not bypassed: its weights would be normalised twice")

    def of(wanted: Tensors) -> tuple[Tensor, Moved]:
        return _evaluated(D, spec, inputs, _with(spec, inputs, wanted, aux_loss), aux_loss)

    wanted = _wanted(spec, inputs)
    if not wanted:
        loss, (moved, states, info) = of({})
        return StepResult(loss, {}, moved, states, *info)
    grads, (loss, (moved, states, info)) = torch.func.grad_and_value(of, has_aux=True)(wanted)
    return StepResult(loss, grads, moved, states, *info)


def _eager_step(D: nn.Module, spec: StepSpec, inputs: StepInputs, aux_loss: AuxLoss | None) -> StepResult:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in _wanted(spec, inputs).items()}
    arguments = weights, moving, _ = _with(spec, inputs, leaves, aux_loss)

    def gradient(_: nn.Module, loss: Tensor) -> tuple[Tensor, ...]:
        if not loss.requires_grad:  # of G, with the wiring "cut"
            return tuple(map(torch.zeros_like, leaves.values()))
        with zero_flow.skipping() if spec.differentiates_gradient else nullcontext():
            return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)

    with torch.set_grad_enabled(bool(leaves)):
        loss, (moved, states, info) = _evaluated(D, spec, inputs, arguments, aux_loss)
        if not leaves:
            return StepResult(loss, {}, moved, states, *info)
        found = holding(D, held_in_last_backward(D, spec, weights, moving), gradient, loss)
    return StepResult(loss.detach(), dict(zip(leaves, found, strict=True)), moved, states, *info)
