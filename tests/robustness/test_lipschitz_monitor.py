"""Input gradients and singular values, against discriminators whose values are known."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import fastdat
from fastdat.robustness import input_gradient_norms, layer_norms, lipschitz, midpoint
from tests import discriminators
from tests.robustness.linear_nets import SHAPE, LinearD


class Quadratic(nn.Module):
    """``sum x^2 / 2``: its gradient at x is x. ``scale`` (N,) multiplies it."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = x.flatten(1).square().sum(1, keepdim=True) / 2
        return (logits if scale is None else logits * scale[:, None]), x


def norms(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).sqrt()


def test_a_linear_discriminator_has_one_gradient() -> None:
    D, x = LinearD(), torch.randn(5, *SHAPE, dtype=torch.float64)
    expected = D.direction.square().sum().sqrt().expand(5)
    torch.testing.assert_close(input_gradient_norms(D, x), expected, rtol=1e-12, atol=0)
    of_both = lipschitz(D, x, 3 * x)
    for place in (of_both.real, of_both.fake, of_both.between):
        assert (place.mean, place.q95, place.max) == pytest.approx((float(expected[0]),) * 3)


def test_a_quadratic_discriminator_is_steep_far_out() -> None:
    x = torch.randn(21, *SHAPE, dtype=torch.float64)
    found = input_gradient_norms(Quadratic(), x, batch_size=4)
    torch.testing.assert_close(found, norms(x), rtol=1e-12, atol=0)
    reals, fakes = torch.zeros(21, *SHAPE).double(), 10 * torch.arange(21).double().reshape(21, 1, 1, 1)
    fakes = fakes.expand(21, *SHAPE) / math.sqrt(6)  # norms 0, 10, ..., 200
    of_both = lipschitz(Quadratic(), reals, fakes)
    assert (of_both.real.mean, of_both.real.max) == (0, 0)
    assert (of_both.fake.mean, of_both.fake.q95, of_both.fake.max) == pytest.approx((100, 190, 200))
    a = torch.rand(21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    between = (1 - a) * 10 * torch.arange(21)
    assert of_both.between.mean == pytest.approx(float(between.mean()))
    assert of_both.between.max == pytest.approx(float(between.max()))
    other = lipschitz(Quadratic(), reals, fakes, generator=torch.Generator().manual_seed(1))
    assert other.between.mean != of_both.between.mean


def test_further_arguments_go_with_their_samples() -> None:
    x, scale = torch.randn(4, *SHAPE, dtype=torch.float64), torch.tensor([1.0, 2.0, 5.0, -3.0]).double()
    expected = norms(x) * scale.abs()
    torch.testing.assert_close(
        input_gradient_norms(Quadratic(), x, args=(scale,), batch_size=3), expected, rtol=1e-12, atol=0
    )
    ones = torch.ones(4).double()
    found = lipschitz(Quadratic(), x, x, args_real=(scale,), args_fake=(ones,))
    assert found.real.max == pytest.approx(float(expected.max()))
    assert found.fake.max == pytest.approx(float(norms(x).max()))
    assert found.between.max == pytest.approx(float(expected.max())), "those of the reals"


def with_singular_values(rows: int, columns: int, largest: float) -> Tensor:
    """A matrix whose largest singular values are ``largest`` and half of it."""
    u, _ = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64))
    count = min(rows, columns)
    values = torch.linspace(largest / 2, 0.1, count, dtype=torch.float64)
    values[0] = largest
    return u[:, :count] @ torch.diag(values) @ v[:count]


def known_net() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 5, 2), nn.Flatten(), nn.Linear(8, 1)
    ).double()
    with torch.no_grad():
        net[0].weight.copy_(with_singular_values(3, 18, 4.0).reshape(3, 2, 3, 3))
        net[2].weight.copy_(with_singular_values(5, 12, 7.0).reshape(5, 3, 2, 2).transpose(0, 1))
        net[4].weight.copy_(torch.tensor([[3.0, 0, 0, 4.0, 0, 0, 0, 12.0]]))
    return net


def test_known_singular_values() -> None:
    """As spectral norm takes them: (out, in k k), also of a transposed convolution, whose weight is (in, out, k, k)."""
    assert layer_norms(known_net()) == pytest.approx({"0": 4.0, "2": 7.0, "4": 13.0}, rel=1e-10)
    assert layer_norms(nn.Linear(2, 3)).keys() == {""}, "a net that is one layer"
    cell = layer_norms(nn.RNNCell(2, 3))
    assert set(cell) == {"weight_ih", "weight_hh"}


@pytest.mark.parametrize(
    "norm", [nn.utils.spectral_norm, parametrizations.spectral_norm], ids=["hook", "parametrization"]
)
@pytest.mark.parametrize("fused", [False, True])
def test_of_a_normalised_layer_it_is_that_of_the_effective_weight(
    norm: Callable[[nn.Module], nn.Module], fused: bool
) -> None:
    """``W / sigma`` with sigma of the power iteration's state, u^T W v, which is smaller here."""
    net = known_net()
    for i in (0, 2, 4):
        norm(net[i])
    hook = "0.weight_orig" in net.state_dict()
    originals = (f"{i}.weight_orig" if hook else f"{i}.parametrizations.weight.original" for i in (0, 2, 4))
    with torch.no_grad():  # other weights of the same singular values: the norms' u and v lag behind
        for name, weight in zip(originals, (p for p in known_net().parameters() if p.ndim > 1), strict=True):
            net.get_parameter(name).copy_(weight)
    if fused:
        fastdat.fuse_spectral_norm(net)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    expected = {}
    for name, dim, largest in (("0", 0, 4.0), ("2", 1, 7.0), ("4", 0, 13.0)):
        kept = (
            ["weight_orig", "weight_u", "weight_v"]
            if hook
            else [f"parametrizations.weight.{n}" for n in ("original", "0._u", "0._v")]
        )
        original, u, v = [state[f"{name}.{n}"] for n in kept]
        sigma = u @ original.movedim(dim, 0).flatten(1) @ v
        expected[name] = largest / abs(float(sigma))
    assert layer_norms(net) == pytest.approx(expected, rel=1e-9)
    assert layer_norms(net)["0"] > 1.1
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, parametrizations.weight_norm], ids=["hook", "parametrization"]
)
def test_of_weight_norm_too(norm: Callable[[nn.Module], nn.Module]) -> None:
    layer = nn.Linear(3, 1, bias=False).double()
    norm(layer)
    g = next(p for name, p in layer.named_parameters() if name.endswith(("_g", "original0")))
    with torch.no_grad():
        g.fill_(2.5)
    assert layer_norms(nn.Sequential(layer)) == pytest.approx({"0": 2.5})


def test_the_net_stays_as_it_was() -> None:
    D, x = discriminators.make("spectral", torch.float32), torch.randn(4, 3, 8, 8)
    before, state = copy.deepcopy(D.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        lipschitz(D, x, x + 1)
        input_gradient_norms(D, x)
        layer_norms(D)
        midpoint(D, x, x)
    torch.testing.assert_close(D.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in D.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert D.training


def test_bad_input() -> None:
    x = torch.zeros(3, *SHAPE).double()
    with pytest.raises(
        ValueError, match=r"xr and xf must have one shape; got \(3, 2, 1, 3\) and \(2, 2, 1, 3\)"
    ):
        lipschitz(LinearD(), x, x[:2])
    with pytest.raises(ValueError, match="args must hold tensors with a row for each of the 3 x"):
        input_gradient_norms(LinearD(), x, args=(torch.zeros(4),))
    with pytest.raises(ValueError, match="args_fake must hold tensors with a row for each of the 2 xf"):
        midpoint(LinearD(), x, x[:2], args_fake=(torch.zeros(3),))
