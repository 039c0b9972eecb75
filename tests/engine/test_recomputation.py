"""Activation checkpointing in eager mode: parts of D run again with the tensors of the call, or not at all."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches, gradients, relative_error
from tests.discriminators import Conv, batch
from tests.gan_discriminators import CHECKPOINTED

EXACT = 1e-12
STRONG = DATConfig(eps=30.0, delta_clip=0.3)
FIELDS = {
    "first": {},
    "second": {"second_order": True},
    "datt": {"clean_weight": 0.5, "steps": 2},
    "second-datt": {"second_order": True, "clean_weight": 0.5, "steps": 2, "eps": 8.0},
    "real-only": {"fake": False},
}


def pair(kind: str) -> tuple[nn.Module, nn.Module]:
    """A checkpointed D and the same without checkpointing, whose own spectral norm would be advanced twice."""
    D = CHECKPOINTED[kind]().double().train()
    plain = copy.deepcopy(D)
    plain.on = False
    return D, plain


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("kind", CHECKPOINTED)
def test_exact(kind: str, fields: str) -> None:
    D, plain = pair(kind)
    xr, xf, _ = batch("conv")
    config = replace(STRONG, **FIELDS[fields])
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, reference_D=plain)
    if kind != "batchnorm":
        assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, reference_D=plain, microbatch=4)


@pytest.mark.parametrize("fields", ["first", "second"])
@pytest.mark.parametrize("kind", ["spectral", "batchnorm"])
def test_with_an_aux_loss_and_frozen_weights(kind: str, fields: str) -> None:
    """What is saved for the backward pass depends on which tensors want gradients: it must be the same again."""
    D, plain = pair(kind)
    D.conv2.requires_grad_(False)
    plain.conv2.requires_grad_(False)
    xr, xf, _ = batch("conv")
    arguments = {"aux_loss": lambda D, xr, xf: D(xr.flip(3)).square().mean(), "reference_D": plain}
    config = replace(STRONG, **FIELDS[fields])
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, **arguments)


def test_gradients_reach_the_samples() -> None:
    D, plain = pair("spectral")
    xr, xf, _ = batch("conv")
    config = replace(STRONG, second_order=True, steps=2, eps=8.0)
    found = []
    for step, of in (
        (fastdat.reference.dat_step, plain),
        (lambda *a: fastdat.dat_step(*a, compile=False), D),
    ):
        f = xf.clone().requires_grad_()
        step(of, xr, f, config, "gan").backward()
        found.append(torch.cat([f.grad.flatten(), gradients(of)]))
    assert relative_error(found[1], found[0]) <= EXACT


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
def test_another_sigma_in_each_call_is_refused(kind: str, second_order: bool) -> None:
    D, plain = pair(kind)
    xr, xf, _ = batch("conv")
    config = replace(STRONG, power_iterations="per_forward", second_order=second_order)
    before = {name: tensor.clone() for name, tensor in D.state_dict().items()}
    with pytest.raises(
        NotImplementedError, match=r"'conv1\S+orig.*sigma.*power_iterations='once'.*microbatch"
    ):
        fastdat.dat_step(D, xr, xf, config, compile=False)
    torch.testing.assert_close(dict(D.state_dict()), before, rtol=0, atol=0)
    D.eval(), plain.eval()  # sigma stays as it is
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, reference_D=plain)


@pytest.mark.parametrize("kind", ["plain", "batchnorm"])
def test_per_forward_without_spectral_norm(kind: str) -> None:
    D, plain = pair(kind)
    xr, xf, _ = batch("conv")
    config = replace(STRONG, power_iterations="per_forward", second_order=True)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, reference_D=plain)


def test_a_buffer_that_the_output_depends_on_is_refused() -> None:
    class Scaled(Conv):
        """Its output depends on how often it was called."""

        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(()))

        def scaled(self, x: Tensor) -> Tensor:
            self.scale.add_(0.25)
            return self.features(x) * self.scale.clone()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.scaled, x, use_reentrant=False))

    D, (xr, xf, _) = Scaled().double(), batch("conv")
    with pytest.raises(NotImplementedError, match=r"buffer 'scale' moves in each call.*checkpointed part"):
        fastdat.dat_step(D, xr, xf, STRONG, compile=False)
    assert D.scale == 1


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_reentrant_checkpointing_is_refused_by_torch() -> None:
    class Reentrant(Conv):
        def features(self, x: Tensor) -> Tensor:
            return checkpoint(super().features, x, use_reentrant=True)

    D, (xr, xf, _) = Reentrant(), batch("conv", dtype=torch.float32)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        fastdat.dat_step(D, xr, xf, STRONG, compile=False)
