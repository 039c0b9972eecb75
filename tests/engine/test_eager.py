"""Eager mode takes every D that autograd takes, and holds no graph for longer than it needs it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches, gradients, relative_error
from tests.discriminators import BatchNormConv, Conv, batch

EXACT = 1e-12
STRONG = DATConfig(eps=30.0, delta_clip=0.3)


class Softplus(torch.autograd.Function):
    """An autograd.Function of the old style, in NumPy, whose backward is differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(F.softplus(x).numpy().copy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].sigmoid()


class OldFunction(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(Softplus.apply(self.features(x)))


class OffloadedActivations(Conv):
    def features(self, x: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            return super().features(x)


class OwnGradient(Conv):
    """D of the squared norm of a gradient that it takes itself."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            score = self.head(self.features(x))
            (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score + gradient.square().sum((1, 2, 3))[:, None]


class GradientHook(Conv):
    """Halves the gradient that passes through its features."""

    def features(self, x: Tensor) -> Tensor:
        h = super().features(x)
        if h.requires_grad:
            h.register_hook(lambda gradient: gradient / 2)
        return h


@pytest.mark.parametrize(
    "config",
    [STRONG, replace(STRONG, second_order=True), replace(STRONG, clean_weight=1.0, steps=2)],
    ids=["first", "second", "datt"],
)
@pytest.mark.parametrize("kind", [OldFunction, OffloadedActivations, OwnGradient, GradientHook])
def test_what_torch_func_refuses(kind: Callable[[], nn.Module], config: DATConfig) -> None:
    D, (xr, xf, _) = kind().double(), batch("conv")
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, microbatch=4)
    loss = fastdat.dat_step(D, xr, xf, config, "gan", compile=False)
    with torch.no_grad():
        torch.testing.assert_close(fastdat.dat_step(D, xr, xf, config, "gan", compile=False), loss.detach())


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("with_info", [False, True])
def test_measurements_change_nothing(with_info: bool, second_order: bool) -> None:
    """A D that couples samples is pulled back twice where the attack is measured, and once where it is not."""
    D, (xr, xf, _) = BatchNormConv().double(), batch("conv")
    config = replace(STRONG, second_order=second_order)
    fastdat.reference.dat_step(D, xr, xf, config, "gan").backward()
    expected = gradients(D)
    D.zero_grad()
    found = fastdat.dat_step(D, xr, xf, config, "gan", compile=False, with_info=with_info)
    (found[0] if with_info else found).backward()
    assert relative_error(gradients(D), expected) <= EXACT


class Box:
    """Holds a tensor that autograd has saved."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("with_info", [False, True])
def test_the_attack_s_activations_are_gone_before_the_update(with_info: bool) -> None:
    """In first order nothing but x_hat goes from the attack into the rest."""
    saved: list[weakref.ref[Box]] = []
    alive: list[bool] = []

    class Watched(BatchNormConv):
        def features(self, x: Tensor) -> Tensor:
            def pack(tensor: Tensor) -> Box:
                box = Box(tensor.detach())  # with its graph it would keep itself alive
                saved.append(weakref.ref(box))
                return box

            alive.append(any(box() is not None for box in saved))
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
                return super().features(x)

    D, (xr, xf, _) = Watched().double(), batch("conv")
    fastdat.dat_step(D, xr, xf, STRONG, compile=False, with_info=with_info)
    alive.clear()  # of the calls that inspect D
    fastdat.dat_step(D, xr, xf, STRONG, compile=False, with_info=with_info)
    assert alive == [False, True, False, True]  # real and fake of the attack, real and fake of the update
    assert not any(box() is not None for box in saved)


def test_a_discriminator_without_an_input_gradient_takes_the_plain_step_only() -> None:
    class Blind(Conv):
        """It has one for its parameters only, where it has one."""

        def features(self, x: Tensor) -> Tensor:
            return super().features(x.detach())

    D, (xr, xf, _) = Blind().double(), batch("conv")
    plain = DATConfig(real=False, fake=False)
    with pytest.raises(ValueError, match=r"do not depend on its input.*DATConfig\(real=False, fake=False\)"):
        fastdat.dat_step(D, xr, xf, STRONG, "gan", compile=False)
    assert_step_matches(D, xr, xf, plain, "gan", tolerance=EXACT)
