"""The DAT step as a pure function of tensors: what is compiled, differentiated and mapped over.

Read next to ``fastdat.reference``, which computes the same with the plainest PyTorch. Here D is a function of its
weights (``torch.func.functional_call``), input gradients are ``torch.func.vjp``, and nothing is mutated.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastdat.engine.attack import Attacked, run_attack
from fastdat.engine.discriminator import Call, Weights, call_aux, call_both
from fastdat.engine.passes import zero_flow
from fastdat.engine.types import AuxLoss, Fixed, Inputs, Pair, StepSpec, Tensors
from fastdat.losses import discriminator_loss


def objective(
    D: nn.Module,
    spec: StepSpec,
    params: Tensors,
    buffers: Tensors,
    x: Inputs,
    aux_loss: AuxLoss | None = None,
    fixed: Fixed | None = None,
) -> tuple[Tensor, tuple[Tensors, dict[str, Any]]]:
    """D's loss on the perturbed samples (Eq. 8, Algorithm 1, line 10), a scalar to differentiate.

    Args:
        D: the discriminator, its spectral norm bypassed.
        params: every parameter of D by name.
        buffers: u, v and the moving buffers by name, before the step.
        x: the batch.
        aux_loss: a further loss of D on the clean batch, added; it sees the weights of D's last call.
        fixed: what is already decided, for a part of a batch.

    Returns:
        loss, (new values of the moving buffers, fields of DATInfo).
    """
    config, loss = spec.config, spec.loss
    weights = Weights(spec, params, buffers, in_full=aux_loss is not None)
    moving = {name: buffers[name] for name in spec.moving}
    adversarial = fixed.adversarial if fixed is not None else None
    x_hat = x if adversarial is None else x.replaced(*adversarial)
    attacked: Attacked | None = None
    if config.attacks and adversarial is None:
        attacked = run_attack(D, spec, weights, moving, x, fixed.signs if fixed is not None else ())
        x_hat, moving = attacked.x, attacked.buffers

    # The released code updates on the fakes first; only the order of the buffers' moves depends on it.
    fake_first = config.attacks and config.power_iterations == "per_forward"
    one, other = weights.next(True), weights.next(True)
    real, fake, moving = call_both(
        D, spec, (other, one) if fake_first else (one, other), moving, x_hat, fake_first
    )
    total = discriminator_loss(loss, real.logits, fake.logits)

    clean = Pair(real.logits, fake.logits)
    if attacked is not None:
        clean = attacked.clean
    if config.clean_weight > 0:
        w = config.clean_weight
        total = (total + w * discriminator_loss(loss, *clean)) / (1 + w)

    if aux_loss is not None:
        of_aux, moving = call_aux(D, aux_loss, weights.last(), moving, x)
        total = total + of_aux

    info: dict[str, Any] = {}
    if spec.with_info:
        of_attack = attacked.info if attacked is not None else {}
        info = _info(x, x_hat, real, fake, clean, of_attack)
    return total, ({**weights.buffers(), **moving}, info)


def _rms(delta: Tensor) -> Tensor:
    return delta.to(torch.promote_types(delta.dtype, torch.float32)).square().mean().sqrt()


def _info(
    x: Inputs, x_hat: Inputs, real: Call, fake: Call, clean: Pair, of_attack: dict[str, Any]
) -> dict[str, Any]:
    nan = real.logits.new_full((), torch.nan)
    info = {
        "logits_real": real.logits,
        "logits_fake": fake.logits,
        "clean_logits_real": clean.real,
        "clean_logits_fake": clean.fake,
        "xr_adv": x_hat.xr,
        "xf_adv": x_hat.xf,
        "grad_norm_real": nan,
        "grad_norm_fake": nan,
        "clipped_real": nan,
        "clipped_fake": nan,
        "penalty_fraction": nan,
        "aux": (real.extras, fake.extras),
        **of_attack,
    }
    for side in ("real", "fake"):
        if f"delta_rms_{side}" not in info:
            info[f"delta_rms_{side}"] = _rms(getattr(x_hat, f"x{side[0]}") - getattr(x, f"x{side[0]}"))
    detached: dict[str, Any] = tree_map_only(Tensor, Tensor.detach, info)
    return detached


class StepResult(NamedTuple):
    """What a step computes."""

    loss: Tensor
    grads: Tensors
    """Gradient of each trainable parameter, and of ``xr``, ``xf`` where asked for."""
    buffers: Tensors
    """New values of the buffers that moved: u, v, running statistics."""
    info: dict[str, Any]
    """Fields of ``DATInfo``."""


def step(
    D: nn.Module,
    spec: StepSpec,
    trainable: Tensors,
    frozen: Tensors,
    buffers: Tensors,
    x: Inputs,
    aux_loss: AuxLoss | None = None,
    fixed: Fixed | None = None,
    of_inputs: tuple[str, ...] = (),
    traced: bool = True,
) -> StepResult:
    """``objective`` and its gradient for ``trainable`` and for those of xr, xf that ``of_inputs`` names.

    With ``traced`` the outer derivative is ``torch.func.grad``, which compiles. Without, it is autograd's, which
    in eager mode does not keep a graph of the backward pass alive.
    """
    wanted = {**trainable, **{name: getattr(x, name) for name in of_inputs}}

    def of(wanted: Tensors) -> tuple[Tensor, tuple[Tensors, dict[str, Any]]]:
        params = {**frozen, **{name: wanted[name] for name in trainable}}
        samples = x.replaced(wanted.get("xr", x.xr), wanted.get("xf", x.xf)) if of_inputs else x
        return objective(D, spec, params, buffers, samples, aux_loss, fixed)

    if not wanted:
        loss, (moved, info) = of({})
        return StepResult(loss, {}, moved, info)
    if traced:
        grads, (loss, (moved, info)) = torch.func.grad_and_value(of, has_aux=True)(wanted)
        return StepResult(loss, grads, moved, info)
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in wanted.items()}
        loss, (moved, info) = of(leaves)
        with zero_flow.skipping() if spec.config.second_order else nullcontext():
            found = torch.autograd.grad(
                loss, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
    return StepResult(loss.detach(), dict(zip(leaves, found, strict=True)), moved, info)
