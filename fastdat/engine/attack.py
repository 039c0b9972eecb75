"""The attack: K steps, each of which moves every sample along D's input gradient (Algorithm 1, lines 6 to 9).

For a D that treats samples independently every variant is ``delta_i = c_i * dD(x_i)/dx_i`` with
``c_i = -(eps / eps_batch) * s_i * a'(D_i)``: ``a`` is the function of D that is attacked, ``s_i`` the sign of its
residual. A D that couples samples (batch norm in training) gets the same numbers as seeds of a true vector-Jacobian
product instead.

Signs and targets are constants for autograd throughout. They enter as coefficients, never through ``abs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from fastdat.config import DATConfig
from fastdat.engine.discriminator import Linearised
from fastdat.engine.types import Batch, Pair, SideWeights, StepSpec, Tensors
from fastdat.engine.weights import Weights
from fastdat.kernels import ops
from fastdat.kernels.formulas import Attacked, Limits, coefficients_of_signs
from fastdat.kernels.logit_functions import IDENTITY, slope
from fastdat.losses import Loss

# --- D on a batch --------------------------------------------------------------------------------------------------


class BatchedD(Protocol):
    """D evaluated on the whole batch: at once, or part by part (``microbatch``)."""

    def logits(self, weights: SideWeights, batch: Batch) -> tuple[Pair, Tensors]:
        """Logits (m,) a side, and the buffers that the two calls moved."""
        ...

    def linearise(
        self, weights: SideWeights, batch: Batch, known: Pair | None, needs_gradient: bool
    ) -> Linearised:
        """D linearised at the batch. ``known`` are the logits (m,) of a side that is not attacked; without
        ``needs_gradient`` only the logits will be used."""
        ...


# --- the attack steps ----------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What the first attack step did to one side; 0-dimensional."""

    grad_norm: Tensor
    clipped: Tensor
    delta_rms: Tensor | None
    """None if further attack steps follow or the side is not attacked; it is then computed from x_hat - x."""


class AttackInfo(NamedTuple):
    """What the first attack step did."""

    real: Measured
    fake: Measured
    penalty_fraction: Tensor


class AttackResult(NamedTuple):
    """The outcome of the attack."""

    batch: Batch
    """x_hat."""
    clean: Pair
    """Logits (m,) of the clean samples."""
    buffers: Tensors
    """Running statistics as the clean pass leaves them."""
    signs: list[Pair]
    """Signs (m,) a side, of each attack step."""
    info: AttackInfo | None


def run_attack(
    spec: StepSpec,
    discriminator: BatchedD,
    weights: Weights,
    batch: Batch,
    given_signs: Sequence[Pair] = (),
    signs_only: bool = False,
) -> AttackResult:
    """The K attack steps, on the sides that are attacked.

    Args:
        spec: of the step.
        discriminator: D on this batch.
        weights: D's weights call by call.
        batch: the clean samples.
        given_signs: signs of each step, where this batch is a part of the one that decides them.
        signs_only: only ``signs`` and ``clean`` of the result are wanted, so the last step moves nothing.
    """
    config, once = spec.config, spec.config.power_iterations == "once"
    # Two things differentiate the clean pass: an attack of second order, and a loss that contains it (DATT).
    keep = config.second_order or config.clean_weight > 0
    at = batch if keep else batch.detached()
    first = weights.next(keep)
    of_clean = (first, first if once else weights.next(keep))
    linearised: Linearised | None = None
    if once:  # the clean pass is the first step's, too
        linearised = discriminator.linearise(of_clean, at, None, not (signs_only and config.steps == 1))
        clean, buffers = linearised.logits, linearised.buffers
    else:
        clean, buffers = discriminator.logits(of_clean, at)

    targets: Tensor | None = None
    signs: list[Pair] = []
    info: AttackInfo | None = None
    for k in range(config.steps):
        moves_samples = not (signs_only and k + 1 == config.steps)
        if linearised is None:
            # The released code attacks the fakes first; only the order in which u advances depends on it.
            of_fake = weights.next(config.second_order) if config.fake else of_clean[1]
            of_real = weights.next(config.second_order) if config.real else of_clean[0]
            at = batch if config.second_order else batch.detached()
            linearised = discriminator.linearise((of_real, of_fake), at, clean, moves_samples)
        given = given_signs[k] if given_signs else None
        sign, seeds, targets = _signs_and_seeds(spec, clean, linearised.logits, targets, given)
        signs.append(sign)
        if moves_samples:
            moves = _moves(spec, linearised, seeds)
            measures = spec.with_info and k == 0 and not signs_only
            batch, stats = _perturbed(config, batch, moves, measures)
            if measures:
                info = _attack_info(spec, linearised, moves, seeds, stats)
        linearised = None
    return AttackResult(batch, clean, buffers, signs, info)


# --- signs and seeds -----------------------------------------------------------------------------------------------

SEED_SCALE = -1.0
"""The scale at which the coefficients ``-scale * s_i * a'(D_i)`` are the seeds ``dA/dD_i`` themselves."""


def attacked_functions(config: DATConfig, loss: Loss) -> Attacked:
    """``a_r`` and ``a_f``, what the attack differentiates on real and on fake."""
    match config.seed:
        case "logits":
            return IDENTITY, IDENTITY
        case "eq10":
            return loss.g1, loss.g2
        case "alg1":
            return loss.g2, loss.g1


def strength(config: DATConfig, batch: int) -> float:
    """``eps / eps_batch`` for a global batch of ``batch`` samples a side."""
    return config.eps / (config.eps_batch or batch)


def _signs_and_seeds(
    spec: StepSpec, clean: Pair, now: Pair, targets: Tensor | None, given: Pair | None
) -> tuple[Pair, Pair, Tensor | None]:
    """Signs and seeds ``dA/dD_i = s_i * a'(D_i)``, (n,) a side, and the targets (2,) of the first step."""
    attacked = attacked_functions(spec.config, spec.loss)
    # Lists, since AOTAutograd's cache keeps no graph whose operations take a type of ours.
    logits = torch.stack(list(now))
    if given is not None:
        seeds = coefficients_of_signs(logits, torch.stack(list(given)), attacked, SEED_SCALE)
        return given, Pair(*seeds.unbind()), None
    means = () if spec.group is None else (partial(global_means, spec.group),)
    seeds, sign, targets = ops.attack_coefficients(
        torch.stack(list(clean)), logits, targets, attacked, spec.config.reduction, SEED_SCALE, *means
    )
    return Pair(*sign.unbind()), Pair(*seeds.unbind()), targets


def global_means(group: dist.ProcessGroup, values: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each vector (n,) over the samples of all ranks of ``group``, in one all-reduce."""
    count = values[0].new_full((1,), values[0].numel())
    sums = torch.cat([torch.stack([v.sum() for v in values]), count])
    sums = collectives.wait_tensor(collectives.all_reduce(sums, "sum", group))
    means = sums[:-1] / sums[-1]
    return [means[i] for i in range(len(values))]


# --- moves ---------------------------------------------------------------------------------------------------------


class Move(NamedTuple):
    """Where samples are to move: ``c_i * g_i``, before any limit."""

    gradient: Tensor
    """(n, ...)."""
    coefficient: Tensor
    """(n,)."""


class Moves(NamedTuple):
    """The move of each attacked side; None for a side that is not attacked."""

    real: Move | None
    fake: Move | None
    both: Move | None
    """The two as one move (2n, ...) of real then fake, where D was called on both at once."""


def _moves(spec: StepSpec, linearised: Linearised, seeds: Pair) -> Moves:
    """The move of each attacked side; constants in a first-order step."""
    config, scale = spec.config, strength(spec.config, spec.batch)
    both: Move | None = None
    real: Tensor | None
    fake: Tensor | None
    with torch.set_grad_enabled(config.second_order):
        if spec.independent:
            # Seeds of one keep the input backward free of the batch statistics; they enter as c_i afterwards.
            wanted = Pair(torch.ones_like(seeds.real), torch.ones_like(seeds.fake))
            coefficients = Pair(-scale * seeds.real, -scale * seeds.fake)
        else:
            wanted = seeds
            coefficients = Pair(*[torch.full_like(seed, -scale) for seed in seeds])
        if linearised.pull_both is not None:
            gradient = linearised.pull_both(torch.cat(list(wanted)))
            real, fake = gradient.chunk(2)
            both = _move(config, gradient, torch.cat(list(coefficients)))
        else:
            real, fake = linearised.pull(wanted)
    of_real, of_fake = (_move(config, g, c) for g, c in zip((real, fake), coefficients, strict=True))
    return Moves(of_real, of_fake, both)


def _move(config: DATConfig, gradient: Tensor | None, coefficient: Tensor) -> Move | None:
    if gradient is None:
        return None
    if config.second_order:
        return Move(gradient, coefficient)
    return Move(gradient.detach(), coefficient.detach())


Stats = tuple[Tensor | None, Tensor | None]
"""Statistics (n, 2) a side, of ``perturb_clip_stats``; None where they were not asked for."""


def _perturbed(config: DATConfig, batch: Batch, moves: Moves, with_stats: bool) -> tuple[Batch, Stats]:
    """``clip(x + clamp(c g))`` on the attacked sides, and their statistics if asked for."""
    if moves.both is not None:
        m = batch.xr.shape[0]
        # Reals come first: where they are not clipped, clipping begins with the fakes.
        limits = Limits(config.delta_clip, config.bounds, 0 if config.clip_real else m)
        x_hat, stats = _move_samples(batch.samples(), moves.both, limits, with_stats)
        of_real, of_fake = (None, None) if stats is None else stats.split(m)
        return batch._replace(xr=x_hat[:m], xf=x_hat[m:], both=x_hat), (of_real, of_fake)
    xr, of_real = _move_samples(batch.xr, moves.real, _limits_of(config, "real"), with_stats)
    xf, of_fake = _move_samples(batch.xf, moves.fake, _limits_of(config, "fake"), with_stats)
    return batch.replaced(xr, xf), (of_real, of_fake)


def _limits_of(config: DATConfig, side: Literal["real", "fake"]) -> Limits:
    return Limits(config.delta_clip, config.bounds_of(side))


def _move_samples(
    x: Tensor, move: Move | None, limits: Limits, with_stats: bool
) -> tuple[Tensor, Tensor | None]:
    if move is None:
        return x, None
    if with_stats:
        return ops.perturb_clip_stats(x, *move, limits)
    return ops.perturb_clip(x, *move, limits), None


# --- measurements --------------------------------------------------------------------------------------------------


def _attack_info(
    spec: StepSpec, linearised: Linearised, moves: Moves, seeds: Pair, stats: Stats
) -> AttackInfo:
    """What the first step did to each side, and the penalty fraction of both (see ``DATInfo``)."""
    loss, logits = spec.loss, linearised.logits
    slopes = Pair(slope(loss.g1, logits.real), slope(loss.g2, logits.fake))
    gradients = (None, None) if spec.independent else linearised.pull(slopes)
    real, lowered_real = _measured_side(spec, moves.real, seeds.real, slopes.real, gradients[0], stats[0])
    fake, lowered_fake = _measured_side(spec, moves.fake, seeds.fake, slopes.fake, gradients[1], stats[1])
    lowered = [side for side in (lowered_real, lowered_fake) if side is not None]
    return AttackInfo(real, fake, torch.cat(lowered).mean())


def _measured_side(
    spec: StepSpec, move: Move | None, seeds: Tensor, slopes: Tensor, own: Tensor | None, stats: Tensor | None
) -> tuple[Measured, Tensor | None]:
    """What the first step did to one side, and 1 for each sample (n,) whose ``g(D(x))`` it lowers to first order.

    Args:
        spec: of the step.
        move: of the side; None where it is not attacked.
        seeds: ``dA/dD_i`` (n,).
        slopes: ``g'(D_i)`` (n,).
        own: gradient (n, ...) of ``sum_i g(D_i)``; None for an independent D, for which it follows from ``move``.
        stats: of ``perturb_clip_stats``.
    """
    if move is None or stats is None:
        nan = slopes.new_full((), torch.nan)
        return Measured(nan, nan, None), None
    gradient, c = move
    norm = gradient.flatten(1).to(slopes.dtype).norm(dim=1)
    if own is None:  # the gradient of g(D(x_i)) is g'(D_i) times that of the move
        change = slopes * c * norm
        norm = norm * seeds.abs()
    else:
        change = (own * c.reshape(-1, *(1,) * (gradient.ndim - 1)) * gradient).flatten(1).sum(1)
    squares, clipped = (stats.sum(0) / gradient.numel()).unbind()
    delta_rms = squares.sqrt() if spec.config.steps == 1 else None
    return Measured(norm.mean(), clipped, delta_rms), (change < 0).to(slopes.dtype)
