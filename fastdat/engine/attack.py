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
from fastdat.engine.discriminator import Linearised, Seeds
from fastdat.engine.types import Batch, Sides, SideWeights, StepSpec, Tensors
from fastdat.engine.weights import Weights
from fastdat.kernels import ops
from fastdat.kernels.formulas import Attacked, Limits, coefficients_of_signs
from fastdat.kernels.logit_functions import IDENTITY
from fastdat.losses import AnyLoss, is_pair, loss_slopes
from fastdat.regularizers.term import Pair

# --- D on a batch --------------------------------------------------------------------------------------------------


class BatchedD(Protocol):
    """D evaluated on the whole batch: at once, or part by part (``microbatch``)."""

    def logits(self, weights: SideWeights, batch: Batch) -> tuple[Pair, Tensors]:
        """Logits (m,) a side, and the buffers that the two calls moved."""
        ...

    def linearise(
        self,
        weights: SideWeights,
        batch: Batch,
        sides: Sides,
        known: Pair | None = None,
        needs_gradient: bool = True,
        apart: bool = False,
    ) -> Linearised:
        """D linearised at ``sides`` of the batch, as in ``WholeBatchD``; without ``needs_gradient`` only the logits
        will be used."""
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
    clean: tuple[Tensor | None, Tensor | None]
    """Logits (m,) of the clean samples, by D as the attack calls it; None of a side that it does not look at."""
    buffers: Tensors
    """Running statistics as the clean pass leaves them."""
    info: AttackInfo | None
    signs: Sequence[Pair] = ()
    """Signs (m,) a side, of each attack step."""
    at_clean: Linearised | None = None
    """D at the clean samples, where others may take gradients there, too."""
    gradients: Seeds = (None, None)
    """``dD/dx`` (m, ...) at the clean samples, where the attack has taken it for itself."""


def clean_sides(spec: StepSpec) -> Sides:
    """Sides whose input gradient at the clean samples the attack or a term takes."""
    attacked, needs = spec.attacked, spec.needs
    return Sides(
        attacked.real or needs.gradient.real or needs.loss_gradient,
        attacked.fake or needs.gradient.fake or needs.loss_gradient,
    )


def is_one_sided(spec: StepSpec) -> bool:
    """Whether the input gradient at the clean samples is differentiated on one side only."""
    twice, attacked = spec.second_order, spec.attacked
    needs = spec.needs.gradient
    return (needs.real or (twice and attacked.real)) != (needs.fake or (twice and attacked.fake))


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
    config, once = _dat(spec), spec.config.power_iterations == "once"
    keep = spec.differentiates_clean
    at = batch if keep else batch.detached()
    first = weights.next(keep)
    of_clean = (first, first if once else weights.next(keep))
    attacked, sides = spec.attacked, clean_sides(spec)
    at_clean: Linearised | None = None
    # The clean pass is linearised where it is the first step's, too, or where terms ask for it.
    if once or spec.needs.kept or spec.needs.loss_gradient:
        moves_samples = not (signs_only and config.steps == 1)
        at_clean = discriminator.linearise(of_clean, at, sides, None, moves_samples, is_one_sided(spec))
        clean, buffers = at_clean.logits, at_clean.buffers
    else:
        clean, buffers = discriminator.logits(of_clean, at)

    targets: Tensor | None = None
    signs: list[Pair] = []
    info: AttackInfo | None = None
    gradients: Seeds = (None, None)
    for k in range(config.steps):
        moves_samples = not (signs_only and k + 1 == config.steps)
        shares = once and k == 0
        if shares and at_clean is not None:
            linearised = at_clean
        else:
            # The released code attacks the fakes first; only the order in which u advances depends on it.
            of_fake = weights.next(spec.second_order) if attacked.fake else of_clean[1]
            of_real = weights.next(spec.second_order) if attacked.real else of_clean[0]
            at = batch if spec.second_order else batch.detached()
            linearised = discriminator.linearise((of_real, of_fake), at, attacked, clean, moves_samples)
        given = given_signs[k] if given_signs else None
        sign, seeds, targets = _signs_and_seeds(spec, clean, linearised.logits, targets, given)
        signs.append(sign)
        if moves_samples:
            moves, taken = _moves(spec, linearised, seeds, shares and any(spec.needs.gradient))
            if shares and spec.independent:
                gradients = taken
            measures = spec.with_info and k == 0 and not signs_only
            batch, stats = _perturbed(config, batch, moves, measures)
            if measures:
                info = _attack_info(spec, linearised, moves, seeds, stats)
    # What nobody will ask for keeps no activations alive.
    shared = at_clean if spec.needs.kept or spec.needs.loss_gradient else None
    return AttackResult(batch, clean, buffers, info, signs, shared, gradients)


def _dat(spec: StepSpec) -> DATConfig:
    """The settings of DAT's own attack."""
    assert isinstance(spec.config, DATConfig)
    return spec.config


# --- signs and seeds -----------------------------------------------------------------------------------------------

SEED_SCALE = -1.0
"""The scale at which the coefficients ``-scale * s_i * a'(D_i)`` are the seeds ``dA/dD_i`` themselves."""


def attacked_functions(config: DATConfig, loss: AnyLoss) -> Attacked:
    """``a_r`` and ``a_f``, what the attack differentiates on real and on fake."""
    if is_pair(loss):  # which has no g1 and g2: other seeds are refused
        return IDENTITY, IDENTITY
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
    config = _dat(spec)
    attacked = attacked_functions(config, spec.loss)
    # Lists, since AOTAutograd's cache keeps no graph whose operations take a type of ours.
    logits = torch.stack(list(now))
    if given is not None:
        seeds = coefficients_of_signs(logits, torch.stack(list(given)), attacked, SEED_SCALE)
        return given, Pair(*seeds.unbind()), None
    means = () if spec.group is None else (partial(global_means, spec.group),)
    seeds, sign, targets = ops.attack_coefficients(
        torch.stack(list(clean)), logits, targets, attacked, config.reduction, SEED_SCALE, *means
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


def _moves(spec: StepSpec, linearised: Linearised, seeds: Pair, keep: bool) -> tuple[Moves, Seeds]:
    """The move of each attacked side, constants in a first-order step; and the gradients that it takes.

    Args:
        spec: of the step.
        linearised: D at the samples that move.
        seeds: ``dA/dD_i`` (n,) a side.
        keep: the gradients will be differentiated.
    """
    attacked, twice = spec.attacked, spec.second_order
    scale = strength(_dat(spec), spec.batch)
    both: Move | None = None
    real: Tensor | None
    fake: Tensor | None
    with torch.set_grad_enabled(twice or keep):
        if spec.independent:
            # Seeds of one keep the input backward free of the batch statistics; they enter as c_i afterwards.
            wanted = Pair(torch.ones_like(seeds.real), torch.ones_like(seeds.fake))
            coefficients = Pair(-scale * seeds.real, -scale * seeds.fake)
        else:
            wanted = seeds
            coefficients = Pair(*[torch.full_like(seed, -scale) for seed in seeds])
        if (
            linearised.pull_both is not None
        ):  # both gradients at once, also where a term needs the one and the move not
            gradient = linearised.pull_both(torch.cat(list(wanted)))
            real, fake = gradient.chunk(2)
            if all(attacked):
                both = _move(gradient, torch.cat(list(coefficients)), twice)
        else:
            real, fake = linearised.pull(
                (wanted.real if attacked.real else None, wanted.fake if attacked.fake else None)
            )
    of_real = _move(real, coefficients.real, twice) if attacked.real and real is not None else None
    of_fake = _move(fake, coefficients.fake, twice) if attacked.fake and fake is not None else None
    return Moves(of_real, of_fake, both), (real, fake)


def _move(gradient: Tensor, coefficient: Tensor, differentiable: bool) -> Move:
    return Move(gradient, coefficient) if differentiable else Move(gradient.detach(), coefficient.detach())


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
    of_real, of_fake = loss_slopes(spec.loss, *linearised.logits)
    slopes = Pair(-of_real, -of_fake)  # of what D maximises
    with torch.no_grad():
        gradients: Seeds = (None, None) if spec.independent else linearised.pull(slopes)
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
    norm = gradient.reshape(len(gradient), -1).to(slopes.dtype).norm(dim=1)
    if own is None:  # the gradient of g(D(x_i)) is g'(D_i) times that of the move
        change = slopes * c * norm
        norm = norm * seeds.abs()
    else:
        move_of = own * c.reshape(-1, *(1,) * (gradient.ndim - 1)) * gradient
        change = move_of.reshape(len(own), -1).sum(1)
    squares, clipped = (stats.sum(0) / gradient.numel()).unbind()
    delta_rms = squares.sqrt() if spec.config.steps == 1 else None
    return Measured(norm.mean(), clipped, delta_rms), (change < 0).to(slopes.dtype)
