"""Spectral norm at step level: torch's numbers, torch's buffers, a D that is as before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm as hook_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm

from fastdat.engine.spectral import normalise as spectral
from tests.discriminators import batch, make

LAYERS = {
    "linear": lambda norm: norm(nn.Linear(5, 7)),
    "conv": lambda norm: norm(nn.Conv2d(3, 4, 3)),
    "transposed": lambda norm: norm(nn.ConvTranspose2d(3, 4, 3)),
    "two-iterations": lambda norm: norm(nn.Linear(5, 7), n_power_iterations=2),
    "dim": lambda norm: norm(nn.Conv2d(3, 4, 3), dim=1),
    "one-row": lambda norm: norm(nn.Linear(5, 1)),
    "bias": lambda norm: norm(nn.Linear(5, 7), name="bias"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [spectral_norm, hook_spectral_norm], ids=["parametrization", "hook"])
@pytest.mark.parametrize("layer", LAYERS)
def test_same_numbers_as_torch(layer: str, norm: object, training: bool) -> None:
    if layer == "bias" and norm is hook_spectral_norm:
        pytest.skip("torch's older hook normalises matrices only")
    D = LAYERS[layer](norm).double().train(training)
    D_torch = copy.deepcopy(D)
    (spec,) = spectral.spectral_weights(dict(D.named_modules()))
    name = spec.target.split(".")[-2] if "parametrizations" in spec.target else spec.target
    original = dict(D.named_parameters())[spec.original]
    state = tuple(dict(D.named_buffers())[n] for n in (spec.u, spec.v)) if spec.u else None
    (ours,), (state,) = spectral.normalise([spec], [original], [state], [original.dtype])

    if norm is hook_spectral_norm:
        (hook,) = D_torch._forward_pre_hooks.values()
        hook(D_torch, ())
    expected = getattr(D_torch, name)
    torch.testing.assert_close(ours, expected, rtol=1e-14, atol=1e-14)
    cotangent = torch.randn_like(ours)
    (grad,) = torch.autograd.grad(ours, original, cotangent)
    (expected_grad,) = torch.autograd.grad(
        expected, dict(D_torch.named_parameters())[spec.original], cotangent
    )
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)
    if state:
        for buffer, n in zip(state, (spec.u, spec.v), strict=True):
            torch.testing.assert_close(buffer, dict(D_torch.named_buffers())[n], rtol=1e-14, atol=1e-14)


def test_sigma_of_bf16_weights_is_computed_in_fp32() -> None:
    D = spectral_norm(nn.Linear(64, 64))
    for _ in range(30):
        D(torch.zeros(1, 64))
    (spec,) = spectral.spectral_weights(dict(D.eval().named_modules()))
    weight = D.parametrizations.weight.original.detach()
    state = (D.parametrizations.weight[0]._u, D.parametrizations.weight[0]._v)
    (low,), _ = spectral.normalise([spec], [weight.bfloat16()], [state], [torch.bfloat16])
    assert low.dtype == torch.bfloat16
    exact = weight.double() / torch.linalg.matrix_norm(weight.double(), 2)
    assert (
        low.double() - exact
    ).abs().max() / exact.abs().max() < 2**-7  # the rounding of bf16 itself, twice


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
@pytest.mark.parametrize("fails", [False, True])
def test_bypass_puts_everything_back(kind: str, fails: bool) -> None:
    D, (xr, _, _) = make(kind), batch(kind)
    calls = []
    D.conv1.register_forward_pre_hook(lambda *_: calls.append(1))
    names = [n for n, _ in D.named_parameters()], [n for n, _ in D.named_buffers()], list(D.state_dict())
    weights = spectral.spectral_weights(dict(D.named_modules()))
    try:
        with spectral.bypassed(dict(D.named_modules()), weights):
            assert D(xr).shape == (6, 1)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert names == (
        [n for n, _ in D.named_parameters()],
        [n for n, _ in D.named_buffers()],
        list(D.state_dict()),
    )
    u = dict(D.named_buffers())[weights[0].u].clone()
    D(xr)
    assert not torch.equal(u, dict(D.named_buffers())[weights[0].u])
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
def test_within_a_bypass_weights_are_taken_as_given(kind: str) -> None:
    D, plain, (x, _, _) = make(kind), make("conv"), batch(kind)
    weights = spectral.spectral_weights(dict(D.named_modules()))
    given = {w.target: torch.full_like(dict(D.named_parameters())[w.original], 0.01) for w in weights}
    with torch.no_grad():
        for layer in ("conv1", "conv2", "head"):
            getattr(plain, layer).weight.fill_(0.01)
            getattr(plain, layer).bias.copy_(getattr(D, layer).bias)
    with spectral.bypassed(dict(D.named_modules()), weights):
        out = torch.func.functional_call(D, given, (x,), tie_weights=False)
    torch.testing.assert_close(out, plain(x))
