"""Regularizers and other attacks against values and gradients computed by hand, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.info import DATInfo
from fastdat.regularizers import (
    ASGAN,
    DRAGAN,
    GP,
    LP,
    R1,
    R2,
    RFM,
    SAN,
    ApproxR1,
    LeCam,
    Pair,
    RobGAN,
    Term,
    ZeroGP,
)
from tests.compare import gradients
from tests.discriminators import Smooth, batch
from tests.regularizers.hand_cases import (
    LINEAR,
    PLAIN,
    QUADRATIC,
    Case,
    Linear,
    M,
    Problem,
    Quadratic,
    samples,
)

STEPS = {"reference": fastdat.reference.dat_step, "eager": partial(fastdat.dat_step, compile=False)}
COMPILED = pytest.param(fastdat.dat_step, id="compiled", marks=pytest.mark.slow)
each_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
each_step_and_compiled = pytest.mark.parametrize(
    "step", [*(pytest.param(step, id=name) for name, step in STEPS.items()), COMPILED]
)
close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-13)

Step = Callable[..., Any]
Found = tuple[Tensor, Tensor, DATInfo]


def run(
    run_step: Step,
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    terms: tuple[Term, ...],
    config: Any = PLAIN,
    **kwargs: Any,
) -> Found:
    """Loss, gradients and measurements, with the same random numbers in every call."""
    D = copy.deepcopy(D)
    generator = torch.Generator().manual_seed(11)
    loss, info = run_step(
        D, xr, xf, config, regularizers=terms, generator=generator, with_info=True, **kwargs
    )
    loss.backward()
    return loss.detach(), gradients(D), info


def drawn(terms: tuple[Term, ...], xr: Tensor, xf: Tensor) -> list[dict[str, Tensor]]:
    """The random numbers that ``run`` gives to each term."""
    generator = torch.Generator().manual_seed(11)
    draws = [term.draws(Pair(xr, xf), generator) for term in terms]
    return [{name: numbers.double() for name, numbers in of_term.items()} for of_term in draws]


def check(step: Step, D: nn.Module, cases: dict[str, Case]) -> None:
    """The step with all cases' terms, less the step without them, is the sum of the expected."""
    xr, xf = samples()
    terms = tuple(case.term for case in cases.values())
    configs = {case.config for case in cases.values()}
    (config,) = configs
    loss, gradient, info = run(step, D, xr, xf, terms, config)
    plain, plain_gradient, _ = run(STEPS["reference"], D, xr, xf, (), config)
    parameter = next(D.parameters()).detach()
    value, change = torch.zeros_like(plain), torch.zeros_like(parameter)
    names: list[str] = []
    for case, draws in zip(cases.values(), drawn(terms, xr, xf), strict=True):
        of_case, slope = case.expected(Problem(parameter, xr.flatten(1), xf.flatten(1), draws, config.bounds))
        names.append(case.term.name)
        number = names.count(case.term.name)
        close(info.terms[case.term.name + (f"-{number}" if number > 1 else "")], of_case)
        value, change = value + of_case, change + slope
    scale = max(1.0, float(change.abs().max()))
    close((loss - plain) / scale, value / scale)
    close((gradient - plain_gradient)[: change.numel()].view_as(change) / scale, change / scale)


# --- terms ----------------------------------------------------------------------------------------------------------


@each_step
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_discriminator(step: Step, name: str) -> None:
    check(step, Linear(), {name: LINEAR[name]})


@each_step
@pytest.mark.parametrize("name", QUADRATIC)
def test_a_quadratic_discriminator(step: Step, name: str) -> None:
    check(step, Quadratic(), {name: QUADRATIC[name]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Linear, Quadratic])
def test_all_of_them_in_one_compiled_step(kind: type[nn.Module]) -> None:
    cases = LINEAR if kind is Linear else QUADRATIC
    check(fastdat.dat_step, kind(), {name: case for name, case in cases.items() if case.config == PLAIN})


@each_step_and_compiled
def test_a_flat_discriminator(step: Step) -> None:
    """At w = 0, |g| is 1e-6 instead of 0, and every gradient is finite and 0."""
    D, (xr, xf) = Linear(length=0.0), samples()
    terms = (GP(), ZeroGP("both"), LP(), R1(), GP(target=0.5))
    _, plain, _ = run(STEPS["reference"], D, xr, xf, ())
    _, gradient, info = run(step, D, xr, xf, terms)
    found = torch.stack([info.terms[name] for name in ("gp", "0gp", "lp", "r1", "gp-2")])
    close(found, torch.tensor([10 * (1 - 1e-6) ** 2, 0, 0, 0, 10 * (0.5 - 1e-6) ** 2], dtype=torch.float64))
    close(gradient, plain)


@each_step
@pytest.mark.parametrize(("a", "side"), [(0.0, "fake"), (1.0, "real")])
def test_the_ends_of_the_line_between(
    step: Step, a: float, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a = 1 is the real sample, a = 0 the fake one."""
    D, (xr, xf) = Quadratic(), samples()
    expected = run(STEPS["reference"], D, xr, xf, (ZeroGP(side),))
    monkeypatch.setattr(ZeroGP, "draws", lambda self, x, generator: {"a": torch.full((len(x.real),), a)})
    found = run(step, D, xr, xf, (ZeroGP("between"),))
    close(found[0], expected[0])
    close(found[1], expected[1])


@each_step
def test_dragan_looks_around_the_reals(step: Step) -> None:
    """``|A x|`` at ``xr + a std(xr)/2 u``: the target is never reached, so the value depends on where it is taken."""
    D, (xr, xf) = Quadratic(), samples()
    term = DRAGAN()
    (draws,) = drawn((term,), xr, xf)
    std = ((xr**2).mean() - xr.mean() ** 2).sqrt()
    x = (xr + draws["a"].reshape(-1, 1, 1, 1) * std / 2 * draws["u"]).flatten(1)
    lengths = ((x @ D.A.detach()).square().sum(1) + 1e-12).sqrt()
    close(run(step, D, xr, xf, (term,))[2].terms["dragan"], 10 * (lengths - 1).square().mean())


@each_step_and_compiled
def test_rfm_compares_a_submodule(step: Step) -> None:
    """With phi = W x, D = v . phi, u = W'v/|W'v|: ``20 eps sqrt(m) |W u|`` and ``20 eps sqrt(m) (W u) u' / |W u|``."""
    D = nn.Sequential(nn.Flatten(), nn.Linear(30, 4), nn.Linear(4, 1)).double()
    with torch.no_grad():
        D[1].weight.copy_(torch.linspace(-2, 1, 120).reshape(4, 30).cos() / 3)
    (xr, xf), W, v = samples(), D[1].weight.detach(), D[2].weight.detach()[0]
    term = RFM("1", eps=0.05)
    _, plain, _ = run(STEPS["reference"], D, xr, xf, (), loss="wgan")
    _, gradient, info = run(step, D, xr, xf, (term,), loss="wgan")
    w = v @ W
    u = (w / M) / (w.norm() / M + 1e-8)
    factor = 20 * 0.05 * math.sqrt(M) * math.sqrt(64 / M)
    close(info.terms["rfm"], factor * (W @ u).norm())
    of_W = factor * torch.outer(W @ u, u) / (W @ u).norm()
    close(gradient - plain, torch.cat([of_W.flatten(), torch.zeros(4 + 4 + 1, dtype=torch.float64)]))


def test_many_draws_of_the_finite_difference_are_r1(seeds: None) -> None:
    """``100 mean (D(x) - D(x + 0.01 n))^2`` is ``R1(gamma=0.02)`` on average."""
    D, (xr, xf) = Linear(), samples(20_000)
    terms = run(STEPS["reference"], D, xr, xf, (ApproxR1(), R1(gamma=0.02)))[2].terms
    assert float(terms["ar1"]) == pytest.approx(float(terms["r1"]), rel=0.05)


class Biased(nn.Module):
    """``x_1 + b`` of samples (n, d): reals and fakes that begin with the same number have constant logits."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] + self.b


@each_step_and_compiled
@pytest.mark.parametrize("every", [1, 3])
def test_lecam(step: Step, every: int) -> None:
    """Logits r and f: ``.3 ((r - a_f)_+^2 + (a_r - f)_+^2)`` with running means that begin as r and f."""
    D = Biased()
    lecam = LeCam(decay=0.75, start=2 * every, every=every)
    anchors: list[float] = []
    for turn, (r, f) in enumerate([(1.0, -0.5), (0.4, 0.2), (0.1, -2.0), (2.0, 1.5), (-1.0, 3.0)]):
        xr, xf = torch.full((4, 3), r, dtype=torch.float64), torch.full((4, 3), f, dtype=torch.float64)
        r, f = r + 0.25, f + 0.25
        anchors = [0.75 * a + 0.25 * new for a, new in zip(anchors or (r, f), (r, f), strict=True)]
        above, below = max(r - anchors[1], 0.0), max(anchors[0] - f, 0.0)
        penalised = turn >= 2
        value = 0.3 * (above**2 + below**2) if penalised else 0.0
        slope = 0.3 * (2 * above - 2 * below) if penalised else 0.0
        loss, gradient, info = run(step, D, xr, xf, (lecam,), loss="wgan", step=turn * every)
        close(info.terms["lecam"], torch.tensor(value, dtype=torch.float64))
        close(loss, torch.tensor(f - r + every * value, dtype=torch.float64))
        close(gradient, torch.tensor([every * slope], dtype=torch.float64))
        close(torch.stack([lecam.real, lecam.fake]), torch.tensor(anchors, dtype=torch.float64))
        assert int(lecam.steps) == (turn + 1) * every


class Directed(nn.Module):
    """``(w . x, v . x)``."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor([2.0, 0.25], dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.w, x @ self.v


@each_step
def test_san(step: Step) -> None:
    """``-w (mean v . xr - mean v . xf)``, at the moved samples: ASGAN moves these by -0.1 sign w and 0.1 sign w."""
    xr, xf = (torch.rand(2, 5, 2, dtype=torch.float64) - torch.tensor([[[0.3]], [[0.6]]])).unbind()
    _, gradient, info = run(
        step, Directed(), xr, xf, (SAN(weight=1.5),), ASGAN(eps=0.1, bounds=None), loss="wgan"
    )
    move = torch.tensor([-0.1, 0.1], dtype=torch.float64)
    way = (xf - move).mean(0) - (xr + move).mean(0)
    close(info.terms["san"], 1.5 * way @ torch.tensor([2.0, 0.25], dtype=torch.float64))
    close(gradient, torch.cat([way, 1.5 * way]))


@each_step
@pytest.mark.parametrize("constant", [True, False])
def test_rpgan(step: Step, constant: bool) -> None:
    """``mean softplus(-(D(xr_i) - D(xf_i)))``: ln 2 where D is constant."""
    D, (xr, xf) = Linear(0.0 if constant else 3.0), samples()
    loss, gradient, _ = run(step, D, xr, xf, (), loss="rpgan")
    way = (xr - xf).flatten(1)
    difference = way @ D.w.detach()
    close(loss, (1 + (-difference).exp()).log().mean())
    if constant:
        close(loss, torch.tensor(math.log(2), dtype=torch.float64))
    slopes = -1 / (1 + difference.exp())
    close(gradient, torch.cat([slopes @ way / M, torch.zeros(1, dtype=torch.float64)]))


# --- attacks --------------------------------------------------------------------------------------------------------


def signs() -> Linear:
    """D with a weight that is 0: its input does not move."""
    D = Linear()
    with torch.no_grad():
        D.w[3] = 0.0
    return D


@each_step_and_compiled
def test_asgan(step: Step) -> None:
    """Reals move by -eps sign w, fakes by eps sign w, clipped; both go up the loss ``mean D(xf) - mean D(xr)``."""
    D, (xr, xf) = signs(), samples()
    move = 0.2 * D.w.detach().sign().reshape(1, *xr.shape[1:])
    moved = (xr - move).clamp(-0.2, 0.3), (xf + move).clamp(-0.2, 0.3)
    config = ASGAN(eps=0.2, bounds=(-0.2, 0.3), clean_weight=0.5)
    loss, gradient, info = run(step, D, xr, xf, (), config, loss="wgan")
    close((info.xr_adv, info.xf_adv), moved)
    way = (moved[1] + 0.5 * xf - moved[0] - 0.5 * xr).flatten(1).mean(0) / 1.5
    close(loss, way @ D.w.detach())
    close(gradient[:-1], way)
    cut = [((x < -0.2) | (x > 0.3)).double().mean() for x in (xr - move, xf + move)]
    close([info.clipped_real, info.clipped_fake], cut)
    close(info.grad_norm_real, D.w.detach().norm())


@each_step
def test_asgan_moves_no_sample_in_a_dead_zone(step: Step) -> None:
    """Hinge: reals with D > 1 and fakes with D < -1 stay; the step is one grey level."""
    values = torch.tensor([-3.0, -1.5, -0.45, 0.25, 0.4, 1.5, 3.0], dtype=torch.float64)[:, None]
    D = nn.Linear(1, 1, dtype=torch.float64)
    with torch.no_grad():
        D.weight.fill_(2.0)
        D.bias.fill_(0.0)
    info = run(step, D, values, values.clone(), (), ASGAN(bounds=(-4.0, 4.0)))[2]
    close(info.xr_adv - values, -8 / 255 * (2 * values < 1).double())
    close(info.xf_adv - values, 8 / 255 * (2 * values > -1).double())
    assert float(info.penalty_fraction) == pytest.approx((5 + 5) / 14)


@each_step_and_compiled
@pytest.mark.parametrize(("steps", "length"), [(2, 0.04), (6, 0.1)])
def test_robgan(step: Step, steps: int, length: float) -> None:
    """Reals move by -min(K step, eps) sign w; fakes stay."""
    D, (xr, xf) = signs(), samples()
    config = RobGAN(eps=0.1, step=0.02, steps=steps, bounds=(-0.15, 0.35), clean_weight=0.25)
    loss, gradient, info = run(step, D, xr, xf, (), config, loss="gan")
    moved = (xr - length * D.w.detach().sign().reshape(1, *xr.shape[1:])).clamp(-0.15, 0.35)
    close(info.xr_adv, moved)
    close(info.xf_adv, xf)
    x = torch.cat([moved, xf, xr, xf]).flatten(1)
    side = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat_interleave(M).double()
    weight = torch.tensor([1.0, 1.0, 0.25, 0.25]).repeat_interleave(M).double() / 1.25 / M
    logits = x @ D.w.detach() + 0.1
    close(loss, weight @ (1 + (-side * logits).exp()).log())
    close(gradient[:-1], (-weight * side / (1 + (side * logits).exp())) @ x)


@each_step
@pytest.mark.parametrize(("second_order", "share"), [(False, 0.5), (True, 1.0)])
def test_a_small_attack_adds_to_the_penalties(step: Step, second_order: bool, share: float) -> None:
    """DAT with eps -> 0 adds ``share . c`` times the gradient of ||g||^2, R1 + R2 add ``gamma/2`` times it."""
    D, (xr, xf, _) = Smooth().double(), batch("smooth", m=8)
    eps, gamma = 1e-5, 3e-5
    config = DATConfig(eps=eps, eps_batch=8, bounds=None, delta_clip=None, second_order=second_order)
    plain = run(step, D, xr, xf, (), PLAIN, loss="wgan")[1]
    both = run(step, D, xr, xf, (R1(gamma=gamma), R2(gamma=gamma)), config, loss="wgan")[1]

    xr, xf = xr.clone().requires_grad_(), xf.clone().requires_grad_()
    sign = torch.sign(D(xr).mean() - D(xf).mean()).detach()
    penalty = torch.zeros((), dtype=xr.dtype)
    for x in (xr, xf):
        (g,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        penalty = penalty + g.square().sum() / len(x)
    ((share * sign * eps / 8 + gamma / 2) * penalty).backward()
    torch.testing.assert_close((both - plain) / eps, gradients(D) / eps, rtol=2e-3, atol=1e-5)
