"""The value and the gradient of every term, against its formula written sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.nets.augmentation import augmented
from fastdat.regularizers import (
    ALP,
    AR,
    BCR,
    CR,
    DRAGAN,
    GP,
    LP,
    R1,
    R2,
    RFM,
    SAN,
    ApproxR1,
    ApproxR2,
    DigGAN,
    GradientPenalty,
    LeCam,
    MaxGP,
    Pair,
    Term,
    ZeroGP,
)
from fastdat.regularizers.gradient_penalty import _around
from tests.regularizers.eager_points import EagerPoints, Linear, M, gradients, in_parts, net_and_batch

BOUNDS = (-0.9, 0.7)


@dataclass(frozen=True)
class Flip:
    """A user's augmentation: some samples upside down, and brighter."""

    draws_per_sample: int = 2

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        rows = draws[:, :, None, None, None].to(x.dtype)
        return torch.where(rows[:, 0] < 0.5, x.flip(2), x) + 0.3 * rows[:, 1]


# --- the formulas, one sample at a time ------------------------------------------------------------------------------

Given = Mapping[str, Tensor]


def logit(D: nn.Module, x: Tensor) -> Tensor:
    return D(x[None])[0].squeeze()


def slope(D: nn.Module, x: Tensor) -> Tensor:
    """``dD/dx`` of one sample."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(logit(D, x), x, create_graph=True)[0]


def length(g: Tensor) -> Tensor:
    return (sum((element**2 for element in g.flatten()), g.new_zeros(())) + 1e-12).sqrt()


def square(g: Tensor) -> Tensor:
    return g.flatten().dot(g.flatten())


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum() / len(values)


def between(xr: Tensor, xf: Tensor, given: Given) -> list[Tensor]:
    a = given["a"].double()
    return [a[i] * xr[i] + (1 - a[i]) * xf[i] for i in range(M)]


def around(xr: Tensor, given: Given) -> list[Tensor]:
    std = math.sqrt(sum((e - xr.mean().item()) ** 2 for e in xr.flatten().tolist()) / xr.numel())
    return [xr[i] + given["a"][i].double() * 0.5 * std * given["u"][i].double() for i in range(M)]


def penalty(D: nn.Module, xs: list[Tensor] | Tensor, h: Callable[[Tensor], Tensor]) -> Tensor:
    return mean([h(slope(D, x)) for x in xs])


def consistency(D: nn.Module, xr: Tensor, xf: Tensor, eps: float, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """Vanilla GAN loss: D's loss is the mean of softplus(-D) on reals and of softplus(D) on fakes."""
    total = xr.new_zeros(())
    for xs, sign in ((xr, -1), (xf, 1)):
        squares = []
        for x in xs:
            at = x.detach().requires_grad_()
            (d,) = torch.autograd.grad(F.softplus(sign * logit(D, at)) / M, at)
            moved = x + eps * d / (d.norm() + 1e-8)
            squares.append(square(phi(moved) - phi(x)))
        total = total + torch.stack(squares).sum().sqrt()
    return total


def conv2_of(D: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: D.conv2(torch.tanh(2 * D.conv1(x[None])))  # type: ignore[operator]


def alp(D: nn.Module, xr: Tensor, xf: Tensor, given: Given, steps: int) -> Tensor:
    low, high = BOUNDS
    values = []
    for side, xs in (("real", xr), ("fake", xf)):
        for i, x in enumerate(xs):
            v = given[f"u_{side}"][i].double()
            v = v / (v.norm() + 1e-10)
            for _ in range(steps):
                v.requires_grad_()
                change = (logit(D, x).detach() - logit(D, (x + 2.0 * v).clamp(low, high))).abs() / (2 * M)
                (d,) = torch.autograd.grad(change, v)
                v = d / (d.norm() + 1e-10)
            end = (x + given[f"e_{side}"][i] * v.detach()).clamp(low, high)
            change = (logit(D, x) - logit(D, end)).abs()
            values.append(F.relu(change / max((x - end).norm().item(), 1e-10) - 0.01) ** 2)
    return mean(values)


def changes(D: nn.Module, xs: Tensor, moved: Tensor) -> Tensor:
    return mean([(logit(D, moved[i]) - logit(D, xs[i])) ** 2 for i in range(M)])


def lecam(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    """Anchors before: 0.4 and 0.1; decay 0.9."""
    real, fake = [logit(D, x) for x in xr], [logit(D, x) for x in xf]
    a_r, a_f = 0.9 * 0.4 + 0.1 * mean(real).item(), 0.9 * 0.1 + 0.1 * mean(fake).item()
    return mean([F.relu(t - a_f) ** 2 for t in real]) + mean([F.relu(a_r - t) ** 2 for t in fake])


def lecam_after(real: float, fake: float, steps: int) -> LeCam:
    term = LeCam(decay=0.9, start=7)
    term.real.fill_(real), term.fake.fill_(fake), term.steps.fill_(steps)
    return term


DIFFUSE = ("color", "translation", "cutout")

Formula = Callable[[nn.Module, Tensor, Tensor, Given], Tensor]
CASES: dict[str, tuple[Term, Formula]] = {
    "gp": (
        GP(target=0.3),
        lambda D, r, f, g: penalty(D, between(r, f, g), lambda s: (length(s) - 0.3) ** 2),
    ),
    "lp": (
        LP(target=0.4),
        lambda D, r, f, g: penalty(D, between(r, f, g), lambda s: F.relu(length(s) - 0.4) ** 2),
    ),
    "dragan": (
        DRAGAN(target=0.2),
        lambda D, r, f, g: penalty(D, around(r, g), lambda s: (length(s) - 0.2) ** 2),
    ),
    "r1": (R1(), lambda D, r, f, g: penalty(D, r, square)),
    "r2": (R2(), lambda D, r, f, g: penalty(D, f, square)),
    "0gp": (ZeroGP(), lambda D, r, f, g: penalty(D, r, square)),
    "0gp fake": (ZeroGP("fake"), lambda D, r, f, g: penalty(D, f, square)),
    "0gp both": (ZeroGP("both"), lambda D, r, f, g: penalty(D, r, square) + penalty(D, f, square)),
    "0gp between": (ZeroGP("between"), lambda D, r, f, g: penalty(D, between(r, f, g), square)),
    "one-sided both": (
        GradientPenalty("both", "one-sided", 0.4),
        lambda D, r, f, g: (
            penalty(D, r, lambda s: F.relu(length(s) - 0.4) ** 2)
            + penalty(D, f, lambda s: F.relu(length(s) - 0.4) ** 2)
        ),
    ),
    "ar": (
        AR(eps=0.3),
        lambda D, r, f, g: math.sqrt(64 / M) * consistency(D, r, f, 0.3, lambda x: logit(D, x)),
    ),
    "ar output": (
        AR("output", eps=0.3, batch=None),
        lambda D, r, f, g: consistency(D, r, f, 0.3, lambda x: 1 / (1 + torch.exp(-logit(D, x)))),
    ),
    "rfm": (
        RFM("conv2", eps=0.3, batch=20),
        lambda D, r, f, g: math.sqrt(20 / M) * consistency(D, r, f, 0.3, conv2_of(D)),
    ),
    "alp": (
        ALP(xi=2.0, lengths=(0.1, 3.0), target=0.01),
        lambda D, r, f, g: alp(D, r, f, g, 1),
    ),
    "alp, 3 steps": (
        ALP(xi=2.0, lengths=(0.1, 3.0), target=0.01, iterations=3),
        lambda D, r, f, g: alp(D, r, f, g, 3),
    ),
    "alp, no step": (
        ALP(xi=2.0, lengths=(0.1, 3.0), target=0.01, iterations=0),
        lambda D, r, f, g: alp(D, r, f, g, 0),
    ),
    "ar1": (ApproxR1(sigma=0.2), lambda D, r, f, g: changes(D, r, r + 0.2 * g["noise"].double())),
    "ar2": (ApproxR2(sigma=0.2), lambda D, r, f, g: changes(D, f, f + 0.2 * g["noise"].double())),
    "cr": (CR(), lambda D, r, f, g: changes(D, r, augmented(r, g["real"], DIFFUSE))),
    "cr, own": (CR(augment=Flip()), lambda D, r, f, g: changes(D, r, Flip()(r, g["real"]))),
    "bcr": (
        BCR(fake_ratio=0.4, augment="color,cutout"),
        lambda D, r, f, g: (
            changes(D, r, augmented(r, g["real"], ("color", "cutout")))
            + 0.4 * changes(D, f, augmented(f, g["fake"], ("color", "cutout")))
        ),
    ),
    "lecam": (lecam_after(0.4, 0.1, 7), lambda D, r, f, g: lecam(D, r, f)),
    "diggan": (
        DigGAN(),
        lambda D, r, f, g: mean([(length(slope(D, r[i])) - length(slope(D, f[i]))) ** 2 for i in range(M)]),
    ),
    "maxgp": (
        MaxGP(),
        lambda D, r, f, g: max([square(slope(D, x)) for x in (*r, *f)], key=lambda t: t.item()),
    ),
    "san": (
        SAN(),
        lambda D, r, f, g: (
            mean([D(x[None])[1].squeeze() for x in f]) - mean([D(x[None])[1].squeeze() for x in r])
        ),
    ),
}


def given_to(term: Term, xr: Tensor, xf: Tensor) -> dict[str, Tensor]:
    return {**term.draws(Pair(xr, xf), None), **term.state()}


@pytest.mark.parametrize("case", CASES)
def test_equals_its_formula_in_value_and_gradient(case: str) -> None:
    term, formula = CASES[case]
    D, xr, xf = net_and_batch()
    given = given_to(term, xr, xf)
    value = term.value(EagerPoints(D, xr, xf, bounds=BOUNDS), given)
    expected = formula(D, xr, xf, given)
    assert value.shape == ()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    ours, theirs = gradients(value, D), gradients(expected, D)
    assert theirs.norm() > 1e-4, "this batch tests nothing"
    assert (ours - theirs).norm() <= 1e-11 * theirs.norm()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", [(2, 3), (1, 1, 3)], ids=str)
def test_parts_of_the_batch_add_up_to_the_whole(case: str, sizes: tuple[int, ...]) -> None:
    term, _ = CASES[case]
    D, xr, xf = net_and_batch()
    draws = term.draws(Pair(xr, xf), None)
    whole = term.value(EagerPoints(D, xr, xf), {**draws, **term.state()})
    parts = in_parts(term, D, xr, xf, draws, sizes, term.value)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(parts, D), gradients(whole, D), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_says_whether_it_couples_the_samples_of_a_batch(case: str) -> None:
    term, _ = CASES[case]
    D, xr, xf = net_and_batch()
    points = EagerPoints(D, xr, xf)
    term.value(points, given_to(term, xr, xf))
    assert term.couples == bool(points.asked)


# --- where a derivative might not be finite --------------------------------------------------------------------------

X = torch.tensor([[0.5, -0.25], [0.125, 0.75], [-0.5, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize(
    "term",
    [GP(), LP(), DRAGAN(), R1(), ZeroGP("between"), DigGAN(), MaxGP(), AR(), ALP(), ApproxR1()],
    ids=lambda term: term.name,
)
def test_a_constant_d_has_finite_gradients(term: Term) -> None:
    D = Linear([0.0, 0.0], 0.5)
    value = term.value(EagerPoints(D, X, X + 0.125), given_to(term, X, X))
    assert value.item() == pytest.approx(1.0 if term.name in ("gp", "dragan") else 0.0, abs=1e-5)
    assert torch.equal(gradients(value, D), torch.zeros(3, dtype=torch.float64))


def test_maxgp_of_equal_gradients_is_one_of_them() -> None:
    D = Linear([3.0, -4.0])
    value = MaxGP().value(EagerPoints(D, X, X + 0.125), {})
    torch.testing.assert_close(value, torch.tensor(25.0, dtype=torch.float64))
    torch.testing.assert_close(gradients(value, D)[:2], 2 * D.weight.detach())


def test_alp_of_a_sample_that_cannot_move_is_zero() -> None:
    """In a corner of the bounds and pushed outward, the neighbour is the sample itself: no slope, no division by 0."""
    D = Linear([1.0, 1.0])
    x = torch.ones(3, 2, dtype=torch.float64)
    given = {f"u_{side}": x for side in ("real", "fake")} | {
        f"e_{side}": x[:, 0] for side in ("real", "fake")
    }
    value = ALP(iterations=0).value(EagerPoints(D, x, x, bounds=(-1.0, 1.0)), given)
    assert value.item() == 0
    assert torch.equal(gradients(value, D), torch.zeros(3, dtype=torch.float64))


def test_san_says_what_d_has_to_return() -> None:
    D = Linear([1.0, 2.0])
    with pytest.raises(ValueError, match=r"D returns logits alone: let D end in fastdat\.nets\.SANLinear"):
        SAN().value(EagerPoints(D, X, X), {})

    class Wide(Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x), x

    with pytest.raises(ValueError, match=r"one number a sample.*got shape \(3, 2\)"):
        SAN().value(EagerPoints(Wide([1.0, 2.0]), X, X), {})


# --- what is a constant ----------------------------------------------------------------------------------------------


def gradients_of_samples(term: Term, D: nn.Module, x: Tensor) -> Tensor:
    """Of the value, for reals then fakes (2 m, ...)."""
    points = EagerPoints(D, x, x + 0.125)
    value = term.value(points, given_to(term, x, x))
    found = torch.autograd.grad(value, list(points.x), allow_unused=True, materialize_grads=True)
    return torch.cat(found)


def test_a_moved_sample_is_a_constant_for_ar() -> None:
    """Under a linear D, x' - x does not depend on x: if x' were none, the gradient would be zero."""
    w = torch.tensor([3.0, -4.0], dtype=torch.float64)
    found = gradients_of_samples(AR(batch=None, eps=0.5), Linear(w.tolist()), X)
    torch.testing.assert_close(found, torch.cat([w.expand(3, 2), -w.expand(3, 2)]) / math.sqrt(3))


def test_a_neighbour_and_its_distance_are_constants_for_alp() -> None:
    term = ALP(lengths=(0.5, 0.5 + 1e-9))
    found = gradients_of_samples(term, Linear([3.0, -4.0]), X)
    norms = torch.full((6,), 2 * (5 - 1) * 5 / 0.5 / 6, dtype=torch.float64)
    torch.testing.assert_close(found.norm(dim=1), norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize("term", [GP(), LP(target=0.1), ZeroGP("between"), DRAGAN()], ids=lambda t: t.name)
def test_a_point_between_or_around_samples_is_a_constant(term: Term) -> None:
    D, xr, _ = net_and_batch()
    assert torch.equal(
        gradients_of_samples(term, D, xr), torch.zeros(2 * M, *xr.shape[1:], dtype=torch.float64)
    )


def test_dragan_measures_the_spread_of_data_far_from_zero() -> None:
    """Squares of 1000 in fp32 are 0.06 apart, a sixteenth of the variance."""
    torch.manual_seed(0)
    x = 1000 + torch.randn(50, 3, 4, 4)
    points = EagerPoints(Linear([1.0, 2.0]), x, x)
    given = {"a": torch.ones(50), "u": torch.ones_like(x)}
    added = 2 * (_around(points, given) - x)
    torch.testing.assert_close(added.mean(), x.double().std(correction=0).float(), rtol=1e-4, atol=0)
