"""The attacks ASGAN and RobGAN: samples move along the sign of the gradient of D's own loss.

For a D that treats samples independently that gradient is ``L'(D_i) * dD(x_i)/dx_i``. A D that couples samples gets the
slopes of the loss as seeds of a true vector-Jacobian product. No sample's move depends on another's logit, apart from
its partner's in a loss of pairs: parts of a batch need nothing of each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastdat.engine.attack import AttackInfo, AttackResult, BatchedD, Measured, clean_sides, is_one_sided
from fastdat.engine.discriminator import Linearised, Seeds
from fastdat.engine.types import Batch, Sides, StepSpec
from fastdat.engine.weights import Weights
from fastdat.kernels import ops
from fastdat.kernels.formulas import Limits
from fastdat.losses import is_pair, loss_slopes
from fastdat.regularizers.sign_attacks import SignAttack
from fastdat.regularizers.term import Pair


def run_sign_attack(
    spec: StepSpec, discriminator: BatchedD, weights: Weights, batch: Batch, running: BatchedD
) -> AttackResult:
    """The K steps of the attack; what it moves are constants.

    Args:
        spec: of the step.
        discriminator: D on this batch, as the attack calls it.
        weights: D's weights call by call.
        batch: the clean samples.
        running: D as the loss calls it; ``discriminator`` itself, unless that is in evaluation mode.
    """
    config = spec.config
    assert isinstance(config, SignAttack)
    attacked = Sides(config.real, config.fake)
    at_clean: Linearised | None = None
    if running is discriminator or spec.differentiates_clean or spec.needs.loss_gradient:
        keep = spec.differentiates_clean
        own = weights.next(keep)
        at = batch if keep else batch.detached()
        at_clean = running.linearise((own, own), at, clean_sides(spec), apart=is_one_sided(spec))

    constant = weights.next(False)
    x = batch
    # Logits of a side that does not move matter to a loss of pairs only.
    others: Pair | None = None
    if not (attacked.real and attacked.fake) and not is_pair(spec.loss):
        unused = batch.xr.new_full((batch.xr.shape[0],), torch.nan)
        others = Pair(unused, unused)
    info: AttackInfo | None = None
    of_clean: Seeds = (None, None)
    clean: Seeds = (None, None)
    for k in range(config.steps):
        if k == 0 and at_clean is not None and running is discriminator:
            linearised = at_clean
        else:
            linearised = discriminator.linearise((constant, constant), x.detached(), attacked, others)
        if k == 0:
            seen = zip(linearised.logits, attacked, strict=True)
            real, fake = (logits if moves else None for logits, moves in seen)
            clean = (real, fake)
        kept = linearised is at_clean and any(spec.needs.gradient)
        gradients, taken = _ascent(spec, linearised, attacked, kept)
        if kept and spec.independent:
            of_clean = taken
        sides = zip((batch.xr, batch.xf), (x.xr, x.xf), gradients, strict=True)
        moved = [_moved(config, *side, measure=spec.with_info and k == 0) for side in sides]
        x = x.replaced(moved[0][0], moved[1][0])
        if spec.with_info and k == 0:
            info = _info(spec, gradients, (moved[0][1], moved[1][1]))
    if at_clean is None:
        return AttackResult(x, clean, {}, info)
    shared = at_clean if spec.needs.kept or spec.needs.loss_gradient else None
    return AttackResult(x, at_clean.logits, at_clean.buffers, info, at_clean=shared, gradients=of_clean)


def _ascent(spec: StepSpec, linearised: Linearised, attacked: Sides, keep: bool) -> tuple[Seeds, Seeds]:
    """``d(sum_i L_i)/dx`` (n, ...) of D's loss at the samples of the attacked sides, a constant; and what it takes from
    D for that, which terms will differentiate if ``keep``."""
    slopes = loss_slopes(spec.loss, *[logits.detach() for logits in linearised.logits])
    seeds = [torch.ones_like(slope) if spec.independent else slope for slope in slopes]
    wanted = [seed if attack else None for seed, attack in zip(seeds, attacked, strict=True)]
    with torch.set_grad_enabled(keep and torch.is_grad_enabled()):
        taken = linearised.pull((wanted[0], wanted[1]))
    real, fake = (
        None if g is None else _times(slope, g.detach()) if spec.independent else g.detach()
        for g, slope in zip(taken, slopes, strict=True)
    )
    return (real, fake), taken


def _times(values: Tensor, x: Tensor) -> Tensor:
    """Each sample of ``x`` (n, ...) times its value (n,)."""
    return values.reshape(-1, *(1,) * (x.ndim - 1)) * x


def _moved(
    config: SignAttack, start: Tensor, x: Tensor, gradient: Tensor | None, measure: bool
) -> tuple[Tensor, Tensor | None]:
    """One side after one step, a constant distance from ``start``, and ``perturb_clip_stats``'s (n, 2) if asked for."""
    if gradient is None:
        return x, None
    gradient = gradient.detach()
    direction = torch.where(gradient.isnan(), gradient, gradient.sign())  # a wrong D must not look right
    ones = direction.new_ones(direction.shape[0])
    limits = Limits(None, config.bounds)
    if x is start and config.step_size <= config.radius:  # the first step
        move, coefficient = direction, ones * config.step_size
    else:
        far = (x - start).detach() + config.step_size * direction
        move, coefficient = far.clamp(-config.radius, config.radius), ones
    if measure:
        return ops.perturb_clip_stats(start, move, coefficient, limits)
    return ops.perturb_clip(start, move, coefficient, limits), None


def _info(spec: StepSpec, gradients: Seeds, stats: tuple[Tensor | None, Tensor | None]) -> AttackInfo:
    """What the first step did. Every move along a gradient that is not zero lowers what D maximises."""
    found = [g for g in gradients if g is not None]
    moving = torch.cat([g.reshape(len(g), -1).ne(0).any(1) for g in found])
    share = moving.to(torch.promote_types(found[0].dtype, torch.float32)).mean()
    real, fake = (
        Measured(torch.full_like(share, torch.nan), torch.full_like(share, torch.nan), None)
        if g is None or of_side is None
        else _measured(spec, g, of_side)
        for g, of_side in zip(gradients, stats, strict=True)
    )
    return AttackInfo(real, fake, share)


def _measured(spec: StepSpec, gradient: Tensor, stats: Tensor) -> Measured:
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    squares, clipped = (stats.sum(0) / gradient.numel()).unbind()
    delta_rms = squares.sqrt() if spec.config.steps == 1 else None
    return Measured(wide.reshape(len(wide), -1).norm(dim=1).mean(), clipped, delta_rms)
