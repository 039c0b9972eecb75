"""The attack on D as one coefficient a sample: which function of D it moves, towards what, and how far.

For a D that treats samples independently every variant is ``delta_i = c_i * dD(x_i)/dx_i`` with
``c_i = -(eps / eps_batch) * s_i * a'(D_i)``: the sign ``s_i`` of the residual, the slope of ``a``. A D that couples
samples (batch norm in training) gets the same numbers as seeds of a true vector-Jacobian product instead.

Signs and targets are constants for autograd throughout; they enter as coefficients, never through ``abs``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor, nn

from fastdat.config import DATConfig
from fastdat.engine.discriminator import Linearised, Weights, call_both, linearise
from fastdat.engine.types import Inputs, Pair, StepSpec, Tensors
from fastdat.kernels import ops
from fastdat.losses import LOSSES, Loss


def identity(logits: Tensor) -> Tensor:
    return logits


def attacked_functions(
    config: DATConfig, loss: Loss
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """``a_r`` and ``a_f``, what the attack differentiates on real and on fake."""
    match config.seed:
        case "logits":
            return identity, identity
        case "eq10":
            return loss.g1, loss.g2
        case "alg1":
            return loss.g2, loss.g1


def global_means(values: Sequence[Tensor], group: dist.ProcessGroup | None) -> list[Tensor]:
    """Mean of each vector (n,) over the samples of all ranks of ``group``, in one all-reduce; constants, scalars."""
    if group is None:
        return [v.detach().mean() for v in values]
    count = values[0].new_full((1,), values[0].numel())
    sums = torch.cat([torch.stack([v.detach().sum() for v in values]), count])
    sums = collectives.wait_tensor(collectives.all_reduce(sums, "sum", group))
    means = sums[:-1] / sums[-1]
    return [means[i] for i in range(len(values))]


def attacked_names(config: DATConfig, loss: Loss) -> tuple[str, str] | None:
    """The same by their names in ``fastdat.kernels``; None for a loss that the kernels do not know."""
    if config.seed == "logits":
        return "identity", "identity"
    names = [name for name, known in LOSSES.items() if known is loss]
    if not names:
        return None
    g1, g2 = f"{names[0]}.g1", f"{names[0]}.g2"
    return (g1, g2) if config.seed == "eq10" else (g2, g1)


def residual_signs(
    config: DATConfig,
    loss: Loss,
    clean: Pair,
    now: Pair,
    targets: Pair | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[Pair, Pair]:
    """Sign of each residual ``a(D(x_i)) - t`` (Eqs. 9, 10), 0 where the target is met, and the targets ``t``.

    Args:
        clean: logits (n,) of the clean samples, which give the targets: the other side's global mean.
        now: logits (n,) at the point attacked; the same as ``clean`` in the first step.
        targets: those of the first step, where it is over.
        group: ranks that share the batch.

    Returns:
        signs (n,) a side, targets a scalar a side; all constants.
    """
    a_real, a_fake = attacked_functions(config, loss)
    value = Pair(a_real(now.real), a_fake(now.fake))
    wanted = [] if targets is not None else [a_real(clean.fake), a_fake(clean.real)]
    if config.reduction == "batch":
        wanted = [*wanted, value.real, value.fake]
    means = global_means(wanted, group) if wanted else []
    if targets is None:
        targets = Pair(means.pop(0), means.pop(0))
    if means:
        value = Pair(means[0].expand_as(value.real), means[1].expand_as(value.fake))
    residual = Pair(value.real.detach() - targets.real, value.fake.detach() - targets.fake)
    return Pair(_sign(residual.real), _sign(residual.fake)), targets


def _sign(residual: Tensor) -> Tensor:
    return torch.where(residual.isnan(), residual, torch.sign(residual))  # torch's sign of NaN is 0


def slope(function: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """``a'(D_i)`` of an elementwise function, (n,) -> (n,), itself differentiable."""
    if function is identity:
        return torch.ones_like(logits)
    out, pullback = torch.func.vjp(function, logits)  # type: ignore[misc]
    gradient: Tensor = pullback(torch.ones_like(out))[0]
    return gradient


def seeds(config: DATConfig, loss: Loss, logits: Pair, sign: Pair) -> Pair:
    """``dA/dD_i = s_i * a'(D_i)``, (n,) a side."""
    a_real, a_fake = attacked_functions(config, loss)
    return Pair(sign.real * slope(a_real, logits.real), sign.fake * slope(a_fake, logits.fake))


def strength(config: DATConfig, batch: int) -> float:
    """``eps / eps_batch`` for a global batch of ``batch`` samples a side."""
    return config.eps / (config.eps_batch or batch)


# --- the attack on a batch ----------------------------------------------------------------------------------------


class Attacked(NamedTuple):
    """The outcome of the attack."""

    x: Inputs
    """x_hat."""
    clean: Pair
    """Logits (m,) of the clean samples."""
    buffers: Tensors
    """Running statistics, moved by the clean pass only where the loss contains it."""
    info: dict[str, Any]


def run_attack(
    D: nn.Module,
    spec: StepSpec,
    weights: Weights,
    buffers: Tensors,
    x: Inputs,
    fixed_signs: Sequence[Pair] = (),
) -> Attacked:
    """The K attack steps (Algorithm 1, lines 6-9), each on the sides that are attacked."""
    config, once = spec.config, spec.config.power_iterations == "once"
    # Two things differentiate the clean pass: an attack of second order, and a loss that contains it (DATT).
    keep = config.second_order or config.clean_weight > 0
    at = x if keep else x.detached()
    sides: Linearised | None = None
    if once:
        shared = weights.next(keep)
        sides = linearise(D, spec, (shared, shared), buffers, at)
        clean, moved = sides.logits, sides.buffers
    else:
        real, fake, moved = call_both(D, spec, (weights.next(keep), weights.next(keep)), buffers, at)
        clean = Pair(real.logits, fake.logits)
    targets: Pair | None = None
    info: dict[str, Any] = {}
    for step in range(config.steps):
        if sides is None:
            # The released code attacks the fakes first; only the order of u's advances depends on it.
            of_fake = weights.next(config.second_order) if config.fake else {}
            of_real = (
                of_fake if once and config.fake else weights.next(config.second_order) if config.real else {}
            )
            at = x if config.second_order else x.detached()
            sides = linearise(D, spec, (of_real, of_fake), buffers, at, known=clean)
        if fixed_signs:
            moves = attack_moves(spec, sides, fixed_signs[step])
        else:
            signs, seeded, targets = decide(spec, clean, sides.logits, targets)
            moves = attack_moves(spec, sides, signs, seeded)
        of_first_step = spec.with_info and step == 0
        if of_first_step:
            info = attack_info(spec, sides, moves)
        x, measured = perturbed(config, x, moves, measure=of_first_step)
        info |= measured
        sides = None
    return Attacked(x, clean, moved if config.clean_weight > 0 else buffers, info)


Move = tuple[Tensor, Tensor]
"""Input gradient (n, ...) and the coefficient (n,) it is scaled by."""


class Moves(NamedTuple):
    """Where the samples are to move: ``c_i * g_i`` before any clamp; None for a side that is not attacked."""

    real: Move | None
    fake: Move | None
    both: Move | None
    """The two as one move (2n, ...) of real then fake, where D was called on both at once."""
    seeded: Pair
    """``dA/dD_i``, (n,) a side."""


def decide(spec: StepSpec, clean: Pair, now: Pair, targets: Pair | None) -> tuple[Pair, Pair, Pair | None]:
    """Signs and seeds (n,) a side, and the targets; arguments as of ``residual_signs``."""
    config = spec.config
    if spec.attacked is None or spec.group is not None:  # a user's function, or means over several ranks
        signs, targets = residual_signs(config, spec.loss, clean, now, targets, spec.group)
        return signs, seeds(config, spec.loss, now, signs), targets
    wanted = None if targets is None else torch.stack(targets)
    seeded, sign, target = ops.attack_coefficients(
        torch.stack(clean), torch.stack(now), wanted, *spec.attacked, config.reduction, -1.0
    )
    return Pair(*sign.unbind()), Pair(*seeded.unbind()), Pair(*target.unbind())


def attack_moves(spec: StepSpec, sides: Linearised, signs: Pair, seeded: Pair | None = None) -> Moves:
    """The move of each attacked side; constants in a first-order step. ``seeded`` follows from the signs."""
    config, scale = spec.config, strength(spec.config, spec.batch)
    if seeded is None:
        seeded = seeds(config, spec.loss, sides.logits, signs)
    both: Move | None = None
    real: Tensor | None
    fake: Tensor | None
    with torch.set_grad_enabled(config.second_order):
        if spec.independent:
            # Seeds of one keep the input backward free of the batch statistics; they enter as c_i afterwards.
            wanted = Pair(torch.ones_like(seeded.real), torch.ones_like(seeded.fake))
            coefficients = Pair(-scale * seeded.real, -scale * seeded.fake)
        else:
            wanted = seeded
            coefficients = Pair(*[torch.full_like(seed, -scale) for seed in seeded])
        if sides.pull_both is not None:
            gradient = sides.pull_both(torch.cat(wanted))
            real, fake = gradient.chunk(2)
            both = _move(config, gradient, torch.cat(coefficients))
        else:
            real, fake = sides.pull(wanted)
    of_real, of_fake = (_move(config, g, c) for g, c in zip((real, fake), coefficients, strict=True))
    return Moves(of_real, of_fake, both, seeded)


def _move(config: DATConfig, gradient: Tensor | None, coefficient: Tensor) -> Move | None:
    if gradient is None:
        return None
    return (gradient, coefficient) if config.second_order else (gradient.detach(), coefficient.detach())


def perturbed(
    config: DATConfig, x: Inputs, moves: Moves, measure: bool = False
) -> tuple[Inputs, dict[str, Any]]:
    """``clip(x + clamp(c g))`` on the attacked sides, and what it did to them if that is to be measured."""
    if moves.both is not None:
        m = x.xr.shape[0]
        # Reals come first: where they are not clipped, clipping begins with the fakes.
        clip_from = m if config.bounds_of("real") is None else 0
        x_hat, stats = _perturbed(config, x.samples(), moves.both, config.bounds, clip_from, measure)
        of_real, of_fake = (None, None) if stats is None else stats.split(m)
        x = x._replace(xr=x_hat[:m], xf=x_hat[m:], both=x_hat)
    else:
        xr, of_real = _perturbed(config, x.xr, moves.real, config.bounds_of("real"), 0, measure)
        xf, of_fake = _perturbed(config, x.xf, moves.fake, config.bounds_of("fake"), 0, measure)
        x = x.replaced(xr, xf)
    measured = {**_measured(config, "real", of_real, x.xr), **_measured(config, "fake", of_fake, x.xf)}
    return x, measured


def _perturbed(
    config: DATConfig,
    x: Tensor,
    move: Move | None,
    bounds: tuple[float, float] | None,
    clip_from: int,
    measure: bool,
) -> tuple[Tensor, Tensor | None]:
    if move is None:
        return x, None
    if measure:
        return ops.perturb_clip_stats(x, *move, config.delta_clip, bounds, clip_from=clip_from)
    return ops.perturb_clip(x, *move, config.delta_clip, bounds, clip_from=clip_from), None


def _measured(config: DATConfig, side: str, stats: Tensor | None, x: Tensor) -> dict[str, Any]:
    """``clipped``, and ``delta_rms`` where the attack has no further step, from the statistics (n, 2) of a side."""
    if stats is None:
        return {}
    squares, clipped = (stats.sum(0) / x.numel()).unbind()
    info = {f"clipped_{side}": clipped}
    return info if config.steps > 1 else {f"delta_rms_{side}": squares.sqrt(), **info}


def attack_info(spec: StepSpec, sides: Linearised, moves: Moves) -> dict[str, Any]:
    """``grad_norm_*`` and ``penalty_fraction`` of DATInfo."""
    loss, seeded = spec.loss, moves.seeded
    own = Pair(slope(loss.g1, sides.logits.real), slope(loss.g2, sides.logits.fake))
    effects = (None, None) if spec.independent else sides.pull(own)
    info: dict[str, Any] = {}
    lowered = []
    for i, side in enumerate(("real", "fake")):
        move, effect = moves[i], effects[i]
        if move is None:
            info[f"grad_norm_{side}"] = own[i].new_full((), torch.nan)
            continue
        grad, c = move
        norm = grad.flatten(1).to(own[i].dtype).norm(dim=1)
        if effect is None:  # the gradient of g(D(x_i)) is own_i * grad_i, and delta_i is c_i * grad_i
            change = own[i] * c * norm
            norm = norm * seeded[i].abs()
        else:
            change = (effect * c.reshape(-1, *(1,) * (grad.ndim - 1)) * grad).flatten(1).sum(1)
        info[f"grad_norm_{side}"] = norm.mean()
        lowered.append((change < 0).to(own[i].dtype))
    info["penalty_fraction"] = torch.cat(lowered).mean()
    return info
