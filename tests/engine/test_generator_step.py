"""generator_step, G's loss on attacked fakes: against the reference in float64, and against numbers found by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.config import Wiring
from fastdat.losses import LOSSES
from tests.compare import relative_error
from tests.discriminators import KINDS, batch, make
from tests.engine.test_step import STEEP, STEEP_FAKE, STEEP_REAL, STRONG, Steep, identity

WIRINGS = get_args(Wiring)
FIELDS: dict[str, dict[str, Any]] = {
    "default": {},
    "eq10-sample": {"seed": "eq10", "reduction": "sample"},
    "alg1": {"seed": "alg1"},
    "sample": {"reduction": "sample"},
    "no-attack-strength": {"eps": 0.0},
    "eps_batch-none": {"eps_batch": None, "eps": 2.0},
    "no-delta_clip": {"delta_clip": None},
    "no-bounds": {"bounds": None},
    "narrow-bounds": {"bounds": (-0.5, 0.25)},
    "three-steps": {"steps": 3, "eps": 8.0},
    "three-steps-sample": {"steps": 3, "eps": 8.0, "seed": "eq10", "reduction": "sample"},
    "half-clean": {"clean_weight": 0.5, "seed": "alg1"},
    "per_forward": {"power_iterations": "per_forward"},
    "per_forward-three-steps-datt": {"power_iterations": "per_forward", "steps": 3, "clean_weight": 1.0},
}


def both(
    D: nn.Module,
    xf: Tensor,
    xr: Tensor,
    config: DATConfig | None,
    loss: Any,
    compile: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """The gradients for ``xf`` of generator_step and of the reference, whose other results are found to be equal.

    The gradient is taken of a sum, as that of a G with weights would be, and D's own gradients must not exist.
    """
    ours, plain = copy.deepcopy(D), copy.deepcopy(D)
    mine, theirs = xf.clone().requires_grad_(), xf.clone().requires_grad_()
    requires = [p.requires_grad for p in ours.parameters()]
    modes = [module.training for module in ours.modules()]
    value = fastdat.generator_step(ours, 1.0 * mine, xr, config, loss, compile=compile, **options)
    value.backward()
    expected = fastdat.reference.generator_step(plain, 1.0 * theirs, xr, config, loss, **options)
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)
    for (name, buffer), other in zip(plain.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(
            other, buffer, rtol=1e-11, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )
    for net in (ours, plain):
        assert [p.requires_grad for p in net.parameters()] == requires
        assert [module.training for module in net.modules()] == modes
        assert all(p.grad is None for p in net.parameters())
    assert mine.grad is not None
    return mine.grad, torch.zeros_like(theirs) if theirs.grad is None else theirs.grad


def assert_matches(*arguments: Any, wiring: Wiring, **options: Any) -> None:
    mine, theirs = both(*arguments, wiring=wiring, **options)
    config = arguments[3] or DATConfig()
    if wiring == "cut" and config.clean_weight == 0:
        assert not theirs.any()
        assert not mine.any()
    else:
        assert theirs.norm() > 1e-3, "this batch tests nothing"
        assert relative_error(mine, theirs) <= 1e-11


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("kind", ["smooth", "spectral", "batchnorm", "conditional"])
def test_every_field_and_wiring(kind: str, fields: str) -> None:
    xr, xf, args = batch(kind)
    for wiring in WIRINGS:
        config = replace(STRONG, **FIELDS[fields])
        assert_matches(make(kind), xf, xr, config, "gan", wiring=wiring, **args)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_discriminator(kind: str) -> None:
    xr, xf, args = batch(kind)
    config = replace(STRONG, steps=2, seed="eq10", reduction="sample", clean_weight=0.5)
    for wiring in WIRINGS:
        assert_matches(make(kind), xf, xr, config, "gan", wiring=wiring, **args)
        D = make(kind)
        with torch.no_grad():
            for _ in range(5):  # u and v of the older spectral norm are random before
                D(xr, *args.get("args_real", ()))
        assert_matches(D.eval(), xf, xr, config, "gan", wiring=wiring, **args)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss: str) -> None:
    """Reals are compared with fakes by a pair loss: in another order they would give another loss."""
    for kind in ("batchnorm", "spectral"):
        xr, xf, _ = batch(kind)
        for wiring in WIRINGS:
            for fields in ({}, {"clean_weight": 0.5}, {"power_iterations": "per_forward"}):
                assert_matches(make(kind), xf, xr, replace(STRONG, **fields), loss, wiring=wiring)


def test_own_loss_without_a_side_of_g() -> None:
    class Exponential:
        """f-GAN's pair in Sec. II-A."""

        def g1(self, t: Tensor) -> Tensor:
            return -torch.exp(-t)

        def g2(self, t: Tensor) -> Tensor:
            return 1 - t

    xr, xf, _ = batch("spectral")
    assert_matches(
        make("spectral"), xf, xr, replace(STRONG, seed="eq10"), Exponential(), wiring="second_order"
    )


@pytest.mark.parametrize("wiring", ["pass", "second_order"])
def test_clean_fakes_have_no_part_in_a_loss_without_them(wiring: Wiring) -> None:
    """Not even with a factor of 0, which would make a NaN of their infinite loss."""
    options: Any = {"loss": Steep(), "wiring": wiring, "compile": False}
    xf = STEEP_FAKE.clone().requires_grad_()
    loss = fastdat.generator_step(identity(), xf, STEEP_REAL, STEEP, **options)
    loss.backward()
    assert loss.item() == pytest.approx(0.7)
    torch.testing.assert_close(xf.grad, torch.full_like(xf, -0.5))
    with_them = fastdat.generator_step(
        identity(), STEEP_FAKE, STEEP_REAL, replace(STEEP, clean_weight=1e-3), **options
    )
    assert with_them == torch.inf


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("power_iterations", ["once", "per_forward"])
def test_aux_loss_sees_the_clean_fakes(power_iterations: str, wiring: Wiring) -> None:
    """Its gradient reaches them for every wiring, and it shares the weights of the last call."""

    def aux_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
        return 0.3 * D(xf.flip(3))[1].square().mean() + D.features(xr).mean()

    D, (xr, xf, _) = make("two-heads"), batch("two-heads")
    config = replace(STRONG, power_iterations=power_iterations)
    mine, theirs = both(D, xf, xr, config, "gan", wiring=wiring, aux_loss=aux_loss)
    assert theirs.norm() > 1e-3
    assert relative_error(mine, theirs) <= 1e-11


def test_sides_and_order_of_the_d_step_do_not_count() -> None:
    """``real``, ``fake`` and ``second_order`` belong to D's step, and reals are never moved."""
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    for wiring in WIRINGS:
        values = []
        for fields in (
            {},
            {"real": False},
            {"fake": False},
            {"real": False, "fake": False},
            {"second_order": True},
        ):
            x = xf.clone().requires_grad_()
            loss = fastdat.generator_step(
                D, x, xr, replace(STRONG, **fields), "gan", wiring=wiring, compile=False
            )
            loss.backward()
            values.append((loss.item(), x.grad))
        assert all(value[0] == values[0][0] and torch.equal(value[1], values[0][1]) for value in values)


# --- numbers found by hand ------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """``w.x + x' A x / 2`` for points, A symmetric: dD/dx = w + A x."""

    def __init__(self, w: Tensor, A: Tensor) -> None:
        super().__init__()
        self.w, self.A = nn.Parameter(w), nn.Parameter(A)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + 0.5 * (x @ self.A * x).sum(1)


def test_linear_discriminator_by_hand() -> None:
    """Reals are higher, so fakes move up by eps/eps_batch w = (.2, -.4, .1). G minimises -mean D, whose gradient is
    -w/m, and 0 where x_hat is clipped."""
    D = nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        D.weight.copy_(torch.tensor([[0.5, -1.0, 0.25]]))
    xr = torch.tensor([[0.9, -0.8, 0.7], [0.2, -0.5, 0.1]], dtype=torch.float64)
    xf = torch.tensor([[0.9, 0.1, -0.3], [-0.6, -0.7, 0.2]], dtype=torch.float64)
    config = DATConfig(eps=0.8, eps_batch=2)
    inside = torch.tensor(
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64
    )  # .9 + .2 > 1, -.7 - .4 < -1
    x_hat = torch.tensor([[1.0, -0.3, -0.2], [-0.4, -1.0, 0.3]], dtype=torch.float64)
    expected_loss = -D(x_hat).mean()
    for step in (fastdat.reference.generator_step, _eager):
        for wiring in WIRINGS:
            x = xf.clone().requires_grad_()
            loss = step(D, x, xr, config, "hinge", wiring=wiring)
            loss.backward()
            torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
            if wiring != "cut":
                torch.testing.assert_close(x.grad, -D.weight / 2 * inside, rtol=1e-12, atol=0)


def _eager(*arguments: Any, **options: Any) -> Tensor:
    return fastdat.generator_step(*arguments, compile=False, **options)


@pytest.mark.parametrize("step", [fastdat.reference.generator_step, _eager], ids=["reference", "fastdat"])
def test_quadratic_discriminator_by_hand(step: Any) -> None:
    """d = c g with g = w + A x and c = eps/eps_batch here. ``pass`` gives -(w + A x_hat)/m, and ``second_order``
    multiplies it by dx_hat/dx = 1 + c A."""
    w = torch.tensor([0.3, -0.7], dtype=torch.float64)
    A = torch.tensor([[0.4, -0.2], [-0.2, 0.1]], dtype=torch.float64)
    xr = torch.tensor([[2.0, -1.5], [1.0, -2.5], [0.5, -3.0]], dtype=torch.float64)
    xf = torch.tensor([[0.1, 0.5], [-0.3, 0.2], [0.4, 0.9]], dtype=torch.float64)
    D, c = Quadratic(w, A), 0.5
    assert D(xr).mean() > D(xf).mean()
    config = DATConfig(eps=c, eps_batch=1, bounds=None, delta_clip=None)
    at_x_hat = -(w + (xf + c * (w + xf @ A)) @ A) / 3
    for wiring, expected in (("pass", at_x_hat), ("second_order", at_x_hat + c * at_x_hat @ A)):
        x = xf.clone().requires_grad_()
        step(D, x, xr, config, "wgan", wiring=wiring).backward()
        torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("wiring", ["pass", "second_order"])
def test_strength_zero_is_the_usual_step_of_g(wiring: Wiring) -> None:
    D, (xr, xf, _) = make("conv"), batch("conv")
    x, y = xf.clone().requires_grad_(), xf.clone().requires_grad_()
    fastdat.generator_step(D, x, xr, DATConfig(eps=0.0), "gan", wiring=wiring, compile=False).backward()
    torch.nn.functional.softplus(-D(y)).mean().backward()
    assert relative_error(x.grad, y.grad) <= 1e-12


def test_running_statistics_move_as_in_the_usual_step() -> None:
    """Once, by the fakes; a second call on them would move them further."""
    D, (xr, xf, _) = make("batchnorm"), batch("batchnorm")
    plain = copy.deepcopy(D)
    plain(xf)
    fastdat.generator_step(D, xf, xr, DATConfig(eps=0.0), compile=False)
    torch.testing.assert_close(dict(D.named_buffers()), dict(plain.named_buffers()), rtol=1e-12, atol=1e-14)
