"""The regularizers' formulas as the plainest eager PyTorch, for ``fastdat.reference``.

They are written from the papers a second time, apart from the terms' own ``value``: the tests compare the two. Of a
term they read its fields and its random numbers only. ``g(x)_i`` is ``d(sum_j D(x_j)) / dx_i``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdat.losses import AnyLoss, discriminator_loss
from fastdat.nets.augmentation import augmented, parse_policy
from fastdat.regularizers.augmentation_consistency import BCR, CR
from fastdat.regularizers.consistency import AR, RFM
from fastdat.regularizers.diggan import DigGAN
from fastdat.regularizers.finite_difference import ApproxR1, ApproxR2
from fastdat.regularizers.gradient_penalty import DRAGAN, GP, LP, R1, R2, GradientPenalty, ZeroGP
from fastdat.regularizers.lecam import LeCam
from fastdat.regularizers.lipschitz import ALP
from fastdat.regularizers.max_gradient import MaxGP
from fastdat.regularizers.san import SAN
from fastdat.regularizers.term import SIDES, Side, Term

Draws = Mapping[str, Tensor]


class Evaluated(NamedTuple):
    """D at some samples of one side."""

    x: Tensor
    """The samples (n, ...), for which autograd gives gradients."""
    logits: Tensor
    """(n,)."""
    extras: tuple[Any, ...]
    """D's further outputs."""
    features: dict[str, Tensor]
    """Outputs of D's submodules by path."""


class Setting(NamedTuple):
    """What a step tells its terms."""

    evaluate: Callable[[Side, Tensor], Evaluated]
    """D at other samples, with a side's further arguments."""
    x: Mapping[Side, Tensor]
    """The clean samples."""
    clean: Mapping[Side, Evaluated]
    """D at the clean samples, where a term needs it."""
    update: Mapping[Side, Evaluated]
    """The calls that the loss contains, at x_hat."""
    bounds: tuple[float, float] | None
    loss: AnyLoss


def weighted_value(term: Term, at: Setting, draws: Draws) -> Tensor:
    """The term times its weight, a scalar.

    Raises:
        NotImplementedError: a user's own term, of which only ``value`` is known.
    """
    formula = FORMULAS.get(type(term))
    if formula is None:
        raise NotImplementedError(
            f"fastdat.reference knows the formulas of fastdat's own regularizers, and {type(term).__name__} is none of "
            "them: use fastdat.dat_step(..., compile=False), which takes any Term"
        )
    value: Tensor = formula(term, at, draws)
    return value


def input_gradient(at: Evaluated) -> Tensor:
    """g(x), (n, ...), which can be differentiated again."""
    return torch.autograd.grad(at.logits.sum(), at.x, create_graph=True)[0]


def mean_gradient_norm(sides: Sequence[Evaluated]) -> Tensor:
    """Mean of ||g(x_i)||_2 over the samples of all ``sides``; a constant."""
    return torch.cat([_norm(input_gradient(at)).detach() for at in sides]).mean()


def _square(g: Tensor) -> Tensor:
    """(n, ...) -> (n,)."""
    return g.reshape(len(g), -1).square().sum(1)


def _norm(g: Tensor) -> Tensor:
    """(n, ...) -> (n,); its derivative at zero is zero."""
    return (_square(g) + 1e-12).sqrt()


def _rows(values: Tensor, x: Tensor) -> Tensor:
    """One value a sample (n,), in the precision of ``x`` (n, ...) and with its dimensions."""
    return values.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


# --- gradient penalties ---------------------------------------------------------------------------------------------


def _gp(term: GP, at: Setting, draws: Draws) -> Tensor:
    g = input_gradient(at.evaluate("real", _between(at, draws)))
    return term.weight * (_norm(g) - term.target).square().mean()


def _lp(term: LP, at: Setting, draws: Draws) -> Tensor:
    g = input_gradient(at.evaluate("real", _between(at, draws)))
    return term.weight * (_norm(g) - term.target).relu().square().mean()


def _r1(term: R1, at: Setting, draws: Draws) -> Tensor:
    return term.gamma / 2 * _square(input_gradient(at.clean["real"])).mean()


def _r2(term: R2, at: Setting, draws: Draws) -> Tensor:
    return term.gamma / 2 * _square(input_gradient(at.clean["fake"])).mean()


def _zero_gp(term: ZeroGP, at: Setting, draws: Draws) -> Tensor:
    squares = [_square(input_gradient(point)).mean() for point in _points(term.at, at, draws)]
    return term.weight * torch.stack(squares).sum()


def _dragan(term: DRAGAN, at: Setting, draws: Draws) -> Tensor:
    g = input_gradient(at.evaluate("real", _around(at, draws)))
    return term.weight * (_norm(g) - term.target).square().mean()


def _gradient_penalty(term: GradientPenalty, at: Setting, draws: Draws) -> Tensor:
    """Any of them."""
    values = []
    for point in _points(term.at, at, draws):
        g = input_gradient(point)
        above = _norm(g) - term.target
        h = {"zero": _square(g), "two-sided": above.square(), "one-sided": above.relu().square()}
        values.append(h[term.norm].mean())
    return term.weight * torch.stack(values).sum()


def _points(where: str, at: Setting, draws: Draws) -> list[Evaluated]:
    if where == "between":
        return [at.evaluate("real", _between(at, draws))]
    if where == "around":
        return [at.evaluate("real", _around(at, draws))]
    return [at.clean[side] for side in SIDES if where in (side, "both")]


def _between(at: Setting, draws: Draws) -> Tensor:
    xr, xf = (at.x[side].detach() for side in SIDES)
    a = _rows(draws["a"], xr)
    return a * xr + (1 - a) * xf


def _around(at: Setting, draws: Draws) -> Tensor:
    xr = at.x["real"].detach()
    return xr + 0.5 * xr.std(correction=0) * draws["u"].to(xr.dtype) * _rows(draws["a"], xr)


def _diggan(term: DigGAN, at: Setting, draws: Draws) -> Tensor:
    real, fake = (_norm(input_gradient(at.clean[side])) for side in SIDES)
    return term.weight * (real - fake).square().mean()


def _max_gp(term: MaxGP, at: Setting, draws: Draws) -> Tensor:
    squares = [_square(input_gradient(at.clean[side])) for side in SIDES]
    return term.weight * torch.cat(squares).max()


# --- D at neighbours of the clean samples ---------------------------------------------------------------------------


def _consistency(term: AR | RFM, at: Setting, draws: Draws) -> Tensor:
    """x' goes up D's loss. The Frobenius norms are of the whole side, and are not squared."""
    xs = [at.clean[side].x for side in SIDES]
    loss = discriminator_loss(at.loss, at.clean["real"].logits, at.clean["fake"].logits)
    norms = []
    for side, d in zip(SIDES, torch.autograd.grad(loss, xs, retain_graph=True), strict=True):
        length = d.reshape(len(d), -1).norm(dim=1) + 1e-8
        moved = at.evaluate(side, at.clean[side].x.detach() + term.eps * d / _rows(length, d))
        square = (_seen(term, moved) - _seen(term, at.clean[side])).square().sum()
        norms.append(square.sqrt() if square > 0 else square)  # the derivative at zero is zero
    scale = 1.0 if term.batch is None else (term.batch / len(xs[0])) ** 0.5
    return term.weight * scale * (norms[0] + norms[1])


def _seen(term: AR | RFM, at: Evaluated) -> Tensor:
    if isinstance(term, RFM):
        return at.features[term.path]
    return at.logits if term.of == "logits" else at.logits.sigmoid()


def _alp(term: ALP, at: Setting, draws: Draws) -> Tensor:
    x = {side: at.clean[side].x.detach() for side in SIDES}
    m = len(x["real"])
    v = {side: _unit(draws[f"u_{side}"].to(x[side].dtype)) for side in SIDES}
    for _ in range(term.iterations):
        for direction in v.values():
            direction.requires_grad_()
        ends = {side: at.evaluate(side, _inside(x[side] + term.xi * v[side], at.bounds)) for side in SIDES}
        changes = [(at.clean[side].logits.detach() - ends[side].logits).abs().sum() for side in SIDES]
        gradients = torch.autograd.grad((changes[0] + changes[1]) / (2 * m), list(v.values()))
        v = {side: _unit(gradient) for side, gradient in zip(SIDES, gradients, strict=True)}
    excess = []
    for side in SIDES:
        length = _rows(draws[f"e_{side}"], x[side])
        neighbour = _inside(x[side] + length * v[side].detach(), at.bounds)
        distance = (x[side] - neighbour).reshape(len(neighbour), -1).norm(dim=1).clamp_min(1e-10)
        change = (at.clean[side].logits - at.evaluate(side, neighbour).logits).abs()
        excess.append((change / distance - term.target).relu().square())
    return term.weight * torch.cat(excess).mean()


def _approx_r1(term: ApproxR1, at: Setting, draws: Draws) -> Tensor:
    return term.weight * _change(at, "real", _noisy(term, at.clean["real"], draws))


def _approx_r2(term: ApproxR2, at: Setting, draws: Draws) -> Tensor:
    return term.weight * _change(at, "fake", _noisy(term, at.clean["fake"], draws))


def _noisy(term: ApproxR1 | ApproxR2, clean: Evaluated, draws: Draws) -> Tensor:
    return clean.x + term.sigma * draws["noise"].to(clean.x.dtype)


def _cr(term: CR, at: Setting, draws: Draws) -> Tensor:
    return term.weight * _change(at, "real", _augmented(term, at.clean["real"], draws["real"]))


def _bcr(term: BCR, at: Setting, draws: Draws) -> Tensor:
    real = _change(at, "real", _augmented(term, at.clean["real"], draws["real"]))
    fake = _change(at, "fake", _augmented(term, at.clean["fake"], draws["fake"]))
    return term.weight * (real + term.fake_ratio * fake)


def _augmented(term: CR | BCR, clean: Evaluated, draws: Tensor) -> Tensor:
    if isinstance(term.augment, str):
        return augmented(clean.x, draws, parse_policy(term.augment)).to(clean.x.dtype)
    return term.augment(clean.x, draws).to(clean.x.dtype)


def _change(at: Setting, side: Side, x: Tensor) -> Tensor:
    """Mean square of what D says of ``x`` less what it says of the clean samples."""
    return (at.evaluate(side, x).logits - at.clean[side].logits).square().mean()


def _unit(v: Tensor) -> Tensor:
    return v / _rows(v.reshape(len(v), -1).norm(dim=1) + 1e-10, v)


def _inside(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


# --- of logits alone ------------------------------------------------------------------------------------------------


def _lecam(term: LeCam, at: Setting, draws: Draws) -> Tensor:
    """The anchors are moved first, in place."""
    real, fake = (at.clean[side].logits for side in SIDES)
    settings, penalised = term.settings, int(term.steps) >= term.settings.start
    decay = settings.decay if int(term.steps) > 0 else 0.0
    with torch.no_grad():
        term.real.copy_(decay * term.real + (1 - decay) * real.mean())
        term.fake.copy_(decay * term.fake + (1 - decay) * fake.mean())
        term.steps.add_(settings.every)
    if not penalised:
        return 0 * real.mean()
    above, below = real - term.fake.to(real.dtype), term.real.to(fake.dtype) - fake
    return settings.weight * (above.relu().square().mean() + below.relu().square().mean())


def _san(term: SAN, at: Setting, draws: Draws) -> Tensor:
    real, fake = (at.update[side].extras[0].flatten() for side in SIDES)
    value: Tensor = real.mean() - fake.mean()
    return -term.weight * value


FORMULAS: dict[type[Term], Callable[..., Tensor]] = {
    GP: _gp,
    LP: _lp,
    R1: _r1,
    R2: _r2,
    ZeroGP: _zero_gp,
    DRAGAN: _dragan,
    GradientPenalty: _gradient_penalty,
    AR: _consistency,
    RFM: _consistency,
    ALP: _alp,
    ApproxR1: _approx_r1,
    ApproxR2: _approx_r2,
    CR: _cr,
    BCR: _bcr,
    DigGAN: _diggan,
    MaxGP: _max_gp,
    LeCam: _lecam,
    SAN: _san,
}
