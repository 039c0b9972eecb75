"""The DAT step as the plainest eager PyTorch: read this first, next to Algorithm 1 of the paper.

Every field of ``DATConfig`` is here and no trick, and so are the other attacks. The regularizers' formulas are in
``fastdat/regularizers/plain_terms.py``. ``fastdat.dat_step`` computes the same numbers, and the tests and benchmarks
compare it with this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol, get_args

import torch
from torch import Tensor, nn

from fastdat.config import DATConfig, Wiring
from fastdat.info import DATInfo
from fastdat.losses import AnyLoss, discriminator_loss, generator_loss, get_loss, is_pair
from fastdat.regularizers import plain_terms
from fastdat.regularizers.plain_state import (
    evaluation_mode,
    every_layer_advances,
    frozen,
    outputs_of,
    power_iteration,
    running_statistics,
)
from fastdat.regularizers.plain_terms import Evaluated, Setting
from fastdat.regularizers.sign_attacks import ASGAN, RobGAN, SignAttack
from fastdat.regularizers.term import SIDES, Pair, Side, Term


def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | ASGAN | RobGAN | None = None,
    loss: str | AnyLoss = "hinge",
    *,
    args_real: tuple[Any, ...] = (),
    args_fake: tuple[Any, ...] = (),
    aux_loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    with_info: bool = False,
    regularizers: Sequence[Term] = (),
    step: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor | tuple[Tensor, DATInfo]:
    """D's loss on perturbed samples (Eq. 8), one process, whole batch; arguments as in ``fastdat.dat_step``.
    Gradients must be on, since the attack takes them by plain autograd.

    Returns:
        loss, a scalar with an ordinary autograd graph; (loss, DATInfo) with ``with_info``.

    Raises:
        ValueError: a seed that a pair loss does not have, or no ``step`` for a regularizer that takes turns.
        NotImplementedError: a regularizer that is not one of fastdat's own.
    """
    config = config or DATConfig()
    loss = get_loss(loss)
    once = config.power_iterations == "once"
    x: dict[Side, Tensor] = {"real": xr, "fake": xf}
    args: dict[Side, tuple[Any, ...]] = {"real": args_real, "fake": args_fake}
    turns = _turns(regularizers, step)
    draws = [term.draws(Pair(xr.detach(), xf.detach()), generator) for _, term in turns]
    paths = {term.needs.features for _, term in turns if term.needs.features}
    evaluate = _evaluator(D, args, once, paths)

    # 1. Clean logits. The pass moves running statistics only if the loss contains it. 2. to 5. The attack.
    def clean_pass() -> dict[Side, Evaluated]:
        return {side: evaluate(side, x[side], config.clean_weight > 0) for side in SIDES}

    clean: dict[Side, Evaluated] = {}
    seen: dict[Side, Evaluated] = {}
    x_hat, gradients = x, BySide()
    if isinstance(config, SignAttack):
        x_hat, gradients, seen = _sign_attack(config, loss, evaluate, D, x)
        if (
            isinstance(config, ASGAN)
            or config.clean_weight > 0
            or any(_look_at_clean(term) for _, term in turns)
        ):
            clean = clean_pass()
    elif config.attacks:
        clean = clean_pass()
        x_hat, gradients = _dat_attack(config, loss, evaluate, x, clean)

    # D's loss on x_hat; the released code calls D on the fakes first.
    fake_first = not once and config.attacks
    perturbed: dict[Side, Evaluated] = {}
    for side in reversed(SIDES) if fake_first else SIDES:
        perturbed[side] = evaluate(side, x_hat[side], moves_statistics=True)
    total = discriminator_loss(loss, perturbed["real"].logits, perturbed["fake"].logits)
    seen = clean or {**perturbed, **seen}
    clean = clean or perturbed
    if config.clean_weight > 0:  # DATT
        w = config.clean_weight
        total = (total + w * discriminator_loss(loss, clean["real"].logits, clean["fake"].logits)) / (1 + w)

    if aux_loss is not None:
        with power_iteration(D, on=False):
            total = total + aux_loss(D, xr, xf)

    # The regularizers, each with its random numbers; their calls of D move no running statistics.
    setting = Setting(evaluate, x, clean, perturbed, config.bounds, loss)
    terms: dict[str, Tensor] = {}
    for (name, term), numbers in zip(turns, draws, strict=True):
        value = plain_terms.weighted_value(term, setting, numbers)
        total = total + term.every * value
        terms[name] = value.detach()
        if term.needs.gradient:
            sides = [clean[side] for side in term.needs.gradient]
            terms[f"{name}.grad_norm"] = plain_terms.mean_gradient_norm(sides)
    if not with_info:
        return total
    real, fake = perturbed["real"], perturbed["fake"]
    moves = {side: _first_move(config, gradient, len(xr)) for side, gradient in gradients.items()}
    if isinstance(config, SignAttack):
        own = {side: -gradient for side, gradient in gradients.items()}
    else:
        own = {side: _own_gradient(D, loss, clean, side, args[side]) for side in gradients}
    lowered = [(own[side] * move).reshape(len(move), -1).sum(1) < 0 for side, (move, _) in moves.items()]
    nan = real.logits.new_full((), torch.nan)
    return total, DATInfo(
        logits_real=real.logits.detach(),
        logits_fake=fake.logits.detach(),
        clean_logits_real=seen["real"].logits.detach(),
        clean_logits_fake=seen["fake"].logits.detach(),
        xr_adv=x_hat["real"].detach(),
        xf_adv=x_hat["fake"].detach(),
        delta_rms_real=(x_hat["real"] - xr).detach().square().mean().sqrt(),
        delta_rms_fake=(x_hat["fake"] - xf).detach().square().mean().sqrt(),
        grad_norm_real=_mean_norm(gradients["real"]) if "real" in gradients else nan,
        grad_norm_fake=_mean_norm(gradients["fake"]) if "fake" in gradients else nan,
        clipped_real=_clipped(xr, *moves["real"], _bounds(config, "real")) if "real" in moves else nan,
        clipped_fake=_clipped(xf, *moves["fake"], _bounds(config, "fake")) if "fake" in moves else nan,
        penalty_fraction=torch.cat(lowered).to(nan.dtype).mean() if lowered else nan,
        aux=(tuple(e.detach() for e in real.extras), tuple(e.detach() for e in fake.extras)),
        terms=terms,
    )


def generator_step(
    D: nn.Module,
    xf: Tensor,
    xr: Tensor,
    config: DATConfig | None = None,
    loss: str | AnyLoss = "hinge",
    *,
    wiring: Wiring = "pass",
    args_real: tuple[Any, ...] = (),
    args_fake: tuple[Any, ...] = (),
    aux_loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """G's loss on fakes that are perturbed as in the D step (Table IV, position (iii)); arguments as in
    ``fastdat.generator_step``.

    Returns:
        loss, a scalar with an ordinary autograd graph from ``xf``; D's parameters are constants in it.

    Raises:
        TypeError, ValueError: an attack other than DAT's own, or an unknown wiring.
    """
    if isinstance(config, SignAttack):
        raise TypeError(
            f"generator_step takes a fastdat.DATConfig, got {type(config).__name__}, which attacks in D's step only"
        )
    if wiring not in get_args(Wiring):
        raise ValueError(f"wiring must be one of {', '.join(map(repr, get_args(Wiring)))}, got {wiring!r}")
    config = replace(config or DATConfig(), real=False, fake=True, second_order=wiring == "second_order")
    loss, w = get_loss(loss), config.clean_weight
    in_loss = is_pair(loss) or w > 0  # the clean pass is, and then it moves running statistics
    evaluate = _evaluator(D, {"real": args_real, "fake": args_fake}, config.power_iterations == "once")
    x: dict[Side, Tensor] = {"real": xr.detach(), "fake": xf}
    with frozen(D):
        clean = {side: evaluate(side, x[side], in_loss) for side in SIDES}
        x_hat, _ = _dat_attack(config, loss, evaluate, x, clean)
        at = x_hat["fake"].detach() if wiring == "cut" else x_hat["fake"]
        perturbed = evaluate("fake", at, moves_statistics=True)
        reals = clean["real"].logits.detach()  # which a pair loss compares with
        total = generator_loss(loss, perturbed.logits, reals)
        if w > 0:
            total = (total + w * generator_loss(loss, clean["fake"].logits, reals)) / (1 + w)
        if aux_loss is not None:
            with power_iteration(D, on=False):
                total = total + aux_loss(D, x["real"], xf)
    return total


# --- D's calls ------------------------------------------------------------------------------------------------------


class Evaluate(Protocol):
    """D's next call in a step: on ``x``, which requires a gradient in the result."""

    def __call__(self, side: Side, x: Tensor, moves_statistics: bool = False) -> Evaluated: ...


def _evaluator(
    D: nn.Module, args: dict[Side, tuple[Any, ...]], once: bool, paths: Collection[str] = ()
) -> Evaluate:
    advanced = False

    def evaluate(side: Side, x: Tensor, moves_statistics: bool = False) -> Evaluated:
        # Spectral norm advances in D's first call, and stays where it is after that if "once".
        nonlocal advanced
        x = x if x.requires_grad else x.detach().requires_grad_()
        on = not once or not advanced
        advanced = True
        with (
            running_statistics(D, move=moves_statistics),
            power_iteration(D, on),
            every_layer_advances(D),
            outputs_of(D, paths) as features,
        ):
            out = D(x, *args[side])
        logits, extras = (out[0], tuple(out[1:])) if isinstance(out, (tuple, list)) else (out, ())
        return Evaluated(x, logits.flatten(), extras, dict(features))

    return evaluate


# --- the attacks ----------------------------------------------------------------------------------------------------

BySide = dict[Side, Tensor]


def _dat_attack(
    config: DATConfig, loss: AnyLoss, evaluate: Evaluate, x: BySide, clean: dict[Side, Evaluated]
) -> tuple[BySide, BySide]:
    """x_hat of both sides, and dA/dx at the clean samples of the attacked ones."""
    x_hat, first = dict(x), BySide()
    # 2. Targets, constants: the other side's mean.
    a = _attacked(config, loss)
    target = {
        "real": a["real"](clean["fake"].logits).mean().detach(),
        "fake": a["fake"](clean["real"].logits).mean().detach(),
    }
    for _ in range(config.steps):
        gradients: BySide = {}
        for side in _attacked_sides(config):
            # 3. The objective A and its gradient for the input.
            at = evaluate(side, x_hat[side] if config.second_order else x_hat[side].detach())
            value = a[side](at.logits)
            batch = config.reduction == "batch"
            objective = (value.mean() - target[side]).abs() if batch else (value - target[side]).abs().mean()
            (gradients[side],) = torch.autograd.grad(
                len(value) * objective, at.x, create_graph=config.second_order
            )
        for side, gradient in gradients.items():
            # 4. The gradient itself, never its sign. 5. Clip.
            delta, limit = _first_move(config, gradient, len(gradient))
            x_hat[side] = _inside(x_hat[side] + delta.clamp(-limit, limit), _bounds(config, side))
        first = first or gradients
    return x_hat, first


def _attacked(config: DATConfig, loss: AnyLoss) -> dict[Side, Callable[[Tensor], Tensor]]:
    """What the attack differentiates, a_r and a_f."""
    if config.seed == "logits":
        return {"real": lambda t: t, "fake": lambda t: t}
    if is_pair(loss):
        raise ValueError(f"seed {config.seed!r} needs a loss with g1 and g2; a pair loss takes seed 'logits'")
    eq10 = config.seed == "eq10"
    return {"real": loss.g1, "fake": loss.g2} if eq10 else {"real": loss.g2, "fake": loss.g1}


def _sign_attack(
    config: ASGAN | RobGAN, loss: AnyLoss, evaluate: Evaluate, D: nn.Module, x: BySide
) -> tuple[BySide, BySide, dict[Side, Evaluated]]:
    """x_hat of both sides; the gradient of the sum of D's loss, and D itself, at clean samples of the attacked ones."""
    x_hat, first, seen = dict(x), BySide(), dict[Side, Evaluated]()
    for _ in range(config.steps):
        with evaluation_mode(D, on=config.in_eval_mode):
            at = {side: evaluate(side, x_hat[side].detach()) for side in SIDES}
        value = len(x["real"]) * discriminator_loss(loss, at["real"].logits, at["fake"].logits)
        sides = _attacked_sides(config)
        gradients = dict(zip(sides, torch.autograd.grad(value, [at[side].x for side in sides]), strict=True))
        for side, gradient in gradients.items():
            move = config.step_size * torch.where(gradient.isnan(), gradient, gradient.sign())
            moved = (x_hat[side] - x[side]).detach() + move
            moved = moved.clamp(-config.radius, config.radius)
            x_hat[side] = _inside(x[side] + moved, config.bounds)
        first, seen = first or gradients, seen or {side: at[side] for side in sides}
    return x_hat, first, seen


def _attacked_sides(config: DATConfig | ASGAN | RobGAN) -> list[Side]:
    """The released code attacks the fakes first."""
    attacked = {"real": config.real, "fake": config.fake}
    return [side for side in reversed(SIDES) if attacked[side]]


def _first_move(config: DATConfig | ASGAN | RobGAN, gradient: Tensor, m: int) -> tuple[Tensor, float]:
    """How far one step would move the samples, and the limit for each element."""
    if isinstance(config, SignAttack):
        return (config.step_size * gradient.sign()).clamp(-config.radius, config.radius), float("inf")
    limit = float("inf") if config.delta_clip is None else config.delta_clip
    return -(config.eps / (config.eps_batch or m)) * gradient, limit


def _bounds(config: DATConfig | ASGAN | RobGAN, side: Side) -> tuple[float, float] | None:
    return config.bounds if isinstance(config, SignAttack) else config.bounds_of(side)


def _inside(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


# --- the regularizers -----------------------------------------------------------------------------------------------


def _look_at_clean(term: Term) -> bool:
    """Whether a term needs D at the clean samples."""
    needs = term.needs
    return bool(needs.logits or needs.gradient or needs.loss_gradient or needs.features)


def _turns(regularizers: Sequence[Term], step: int | None) -> list[tuple[str, Term]]:
    """The regularizers that take part in this step, by their names in ``DATInfo``."""
    turns, count = [], Counter[str]()
    for term in regularizers:
        count[term.name] += 1
        number = count[term.name]
        if term.every > 1 and step is None:
            raise ValueError(
                f"{term.name} is part of one step in {term.every}: pass the number of this one, step="
            )
        if step is None or step % term.every == 0:
            turns.append((term.name if number == 1 else f"{term.name}-{number}", term))
    return turns


# --- measurements ---------------------------------------------------------------------------------------------------


def _mean_norm(gradient: Tensor) -> Tensor:
    norms: Tensor = gradient.detach().reshape(len(gradient), -1).norm(dim=1)
    return norms.mean()


def _clipped(x: Tensor, delta: Tensor, limit: float, bounds: tuple[float, float] | None) -> Tensor:
    """Share of the elements that a limit changes."""
    x, delta = x.detach(), delta.detach()
    moved = x + delta.clamp(-limit, limit)
    low, high = bounds or (-float("inf"), float("inf"))
    cut: Tensor = (delta.abs() > limit) | (moved < low) | (moved > high)
    return cut.to(x.dtype).mean()


def _own_gradient(
    D: nn.Module, loss: AnyLoss, clean: dict[Side, Evaluated], side: Side, args: tuple[Any, ...]
) -> Tensor:
    """Gradient (n, ...) of what D maximises at the clean samples of a side."""
    x = clean[side].x.detach().requires_grad_()
    with torch.enable_grad(), running_statistics(D, move=False), power_iteration(D, on=False):
        out = D(x, *args)
    logits = (out[0] if isinstance(out, (tuple, list)) else out).flatten()
    other = clean["fake" if side == "real" else "real"].logits.detach()
    pair = (logits, other) if side == "real" else (other, logits)
    (own,) = torch.autograd.grad(-len(x) * discriminator_loss(loss, *pair), x)
    return own
