"""Facts about the step that must never change (the algorithm's, each with its own derivation)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.info import DATInfo
from fastdat.losses import get_loss
from fastdat.regularizers.plain_state import power_iteration
from tests.compare import gradients
from tests.discriminators import Smooth, batch, make

STEPS = {
    "reference": fastdat.reference.dat_step,
    "fastdat": lambda *args, **kwargs: fastdat.dat_step(*args, compile=False, **kwargs),
}
each_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)


def info_of(step: object, *args: object, **kwargs: object) -> DATInfo:
    return step(*args, with_info=True, **kwargs)[1]


def linear(w: Tensor, bias: float = 0.0) -> nn.Module:
    D = nn.Linear(w.numel(), 1, dtype=w.dtype)
    with torch.no_grad():
        D.weight.copy_(w[None])
        D.bias.fill_(bias)
    return D


@each_step
def test_1_linear_discriminator(step: object) -> None:
    """delta_f = -(eps / eps_batch) sgn(mean D_f - mean D_r) w and the mirror image: fakes move up D, reals down."""
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    xr, xf = torch.randn(8, 3, dtype=torch.float64) + w, torch.randn(8, 3, dtype=torch.float64) - w
    D = linear(w)
    assert D(xr).mean() > D(xf).mean()
    info = info_of(step, D, xr, xf, DATConfig(eps=3.0, eps_batch=16, bounds=None), "wgan")
    torch.testing.assert_close(info.xf_adv - xf, (3 / 16 * w).expand_as(xf))
    torch.testing.assert_close(info.xr_adv - xr, (-3 / 16 * w).expand_as(xr))
    torch.testing.assert_close(info.grad_norm_real, w.norm())
    assert info.penalty_fraction == 1


@each_step
@pytest.mark.parametrize("seed", ["logits", "eq10", "alg1"])
def test_2_sample_and_batch_agree_when_signs_do(step: object, seed: str) -> None:
    D, (xr, xf, _) = Smooth().double(), batch("smooth")
    xr, xf = xr + 0.5, xf - 0.5
    loss = get_loss("gan")
    with torch.no_grad():
        shift = 50 * (D(xr).mean() - D(xf).mean()).sign()
        D.a.weight *= 1.5
    big = [
        info_of(step, D, xr, xf, DATConfig(seed=seed, reduction=r, bounds=None), loss)
        for r in ("batch", "sample")
    ]
    D_r, D_f = big[0].clean_logits_real, big[0].clean_logits_fake
    a_r = {"logits": D_r, "eq10": loss.g1(D_r), "alg1": loss.g2(D_r)}[seed]
    t_r = {"logits": D_f, "eq10": loss.g1(D_f), "alg1": loss.g2(D_f)}[seed].mean()
    a_f = {"logits": D_f, "eq10": loss.g2(D_f), "alg1": loss.g1(D_f)}[seed]
    t_f = {"logits": D_r, "eq10": loss.g2(D_r), "alg1": loss.g1(D_r)}[seed].mean()
    agree_r = (a_r - t_r).sign() == (a_r.mean() - t_r).sign()
    agree_f = (a_f - t_f).sign() == (a_f.mean() - t_f).sign()
    assert shift != 0
    assert agree_r.any() or agree_f.any()
    torch.testing.assert_close(big[0].xr_adv[agree_r], big[1].xr_adv[agree_r])
    torch.testing.assert_close(big[0].xf_adv[agree_f], big[1].xf_adv[agree_f])
    different = (big[0].xr_adv - big[1].xr_adv).abs().flatten(1).sum(1) > 0
    torch.testing.assert_close(different, ~agree_r)


@each_step
@pytest.mark.parametrize(
    ("second_order", "share"), [(False, 0.5), (True, 1.0)], ids=["detached", "second-order"]
)
def test_3_small_eps_is_a_gradient_penalty(step: object, second_order: bool, share: float) -> None:
    """As eps -> 0 the gradient is the plain loss's plus that of (c/2) or, in second order, c times ||dD/dx||^2."""
    D, (xr, xf, _) = Smooth().double(), batch("smooth", m=8)
    eps = 1e-5
    found, plain = [], copy.deepcopy(D)
    for strength in (eps, 0.0):
        other = copy.deepcopy(D)
        config = DATConfig(eps=strength, eps_batch=1, bounds=None, delta_clip=None, second_order=second_order)
        step(other, xr, xf, config, "wgan").backward()
        found.append(gradients(other))
    change = (found[0] - found[1]) / eps

    xr, xf = xr.clone().requires_grad_(), xf.clone().requires_grad_()
    sign = torch.sign(plain(xr).mean() - plain(xf).mean()).detach()
    penalty = torch.zeros((), dtype=xr.dtype)
    for x in (
        xr,
        xf,
    ):  # reals move by -eps sign grad, fakes by +eps sign grad; both raise the wgan loss alike
        (g,) = torch.autograd.grad(plain(x).sum(), x, create_graph=True)
        penalty = penalty + sign * g.square().sum() / x.shape[0]
    (share * penalty).backward()
    torch.testing.assert_close(change, gradients(plain), rtol=2e-3, atol=1e-5)


@each_step
@pytest.mark.parametrize(
    ("seed", "dead_real", "dead_fake"), [("eq10", "above", "below"), ("alg1", "below", "above")]
)
def test_4_hinge_dead_zones(step: object, seed: str, dead_real: str, dead_fake: str) -> None:
    """eq10: no delta for reals with D > 1 and fakes with D < -1. alg1: for fakes with D > 1, reals with D < -1."""
    values = torch.tensor([-3.0, -1.5, -0.5, 0.25, 0.5, 1.5, 3.0], dtype=torch.float64)[:, None]
    config = DATConfig(seed=seed, reduction="sample", bounds=None)
    info = info_of(step, linear(torch.ones(1, dtype=torch.float64)), values, values.clone(), config)
    dead = {"above": values > 1, "below": values < -1}
    assert torch.equal((info.xr_adv - values) == 0, dead[dead_real])
    assert torch.equal((info.xf_adv - values) == 0, dead[dead_fake])


@each_step
@pytest.mark.parametrize("kind", ["batchnorm", "spectral", "spectral-hook"])
def test_5_the_attack_leaves_no_trace(step: object, kind: str) -> None:
    """.grad, running statistics, random numbers and modes: as the loss of the plain step leaves them."""
    D, (xr, xf, _) = make(kind), batch(kind)
    for p in D.parameters():
        p.grad = torch.ones_like(p)
    modes = {name: m.training for name, m in D.named_modules()}
    before = torch.get_rng_state()
    plain = copy.deepcopy(D)
    _, info = step(D, xr, xf, DATConfig(eps=30.0), with_info=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: m.training for name, m in D.named_modules()} == modes
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in D.parameters())

    with torch.no_grad():  # what moves D's buffers in a plain step on x_hat: real, then fake
        plain(info.xr_adv)
        with power_iteration(plain, on=False):  # u advances exactly once
            plain(info.xf_adv)
    torch.testing.assert_close(dict(D.named_buffers()), dict(plain.named_buffers()))


@each_step
@pytest.mark.parametrize("reduction", ["batch", "sample"])
@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
def test_6_no_move_at_equality(step: object, reduction: str, second_order: bool) -> None:
    """abs has gradient 0 where the residual is 0, and nothing becomes NaN."""
    D = Smooth().double()
    x = torch.rand(1, 2, dtype=torch.float64).expand(4, 2).clone()
    loss, info = step(
        D, x, x.clone(), DATConfig(reduction=reduction, second_order=second_order), "gan", with_info=True
    )
    loss.backward()
    assert torch.equal(info.xr_adv, x)
    assert torch.equal(info.xf_adv, x)
    assert info.penalty_fraction == 0
    assert gradients(D).isfinite().all()


@each_step
@pytest.mark.parametrize("kind", ["conv", "batchnorm"])
def test_nothing_is_penalised_without_strength(step: object, kind: str) -> None:
    """With eps = 0 every sample stays where it is, whether D couples samples or not."""
    D, (xr, xf, _) = make(kind), batch(kind)
    info = info_of(step, D, xr, xf, DATConfig(eps=0.0, bounds=None), "wgan")
    assert torch.equal(info.xr_adv, xr)
    assert torch.equal(info.xf_adv, xf)
    assert info.grad_norm_real > 0
    assert info.penalty_fraction == 0


def test_official_preset_advances_u_six_times() -> None:
    """Six D calls in the released order, each with the sigma of its own u."""
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    other = copy.deepcopy(D)
    fastdat.dat_step(D, xr, xf, DATConfig.official(), compile=False)
    for _ in range(6):
        other(xr)
    torch.testing.assert_close(dict(D.named_buffers()), dict(other.named_buffers()))


def test_attack_free_step_is_the_plain_hinge_step() -> None:
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    plain = copy.deepcopy(D)
    fastdat.dat_step(D, xr, xf, DATConfig(real=False, fake=False), compile=False).backward()
    real = plain(xr)
    with power_iteration(plain, on=False):
        fake = plain(xf)
    (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()).backward()
    torch.testing.assert_close(gradients(D), gradients(plain), rtol=1e-12, atol=1e-14)
