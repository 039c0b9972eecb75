"""Gradient normalisation: values by hand, both orders in a DAT step, and a step of G."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm

import fastdat
from fastdat import DATConfig
from fastdat.losses import generator_loss
from fastdat.nets import GradientNormalised
from tests.compare import assert_step_matches, gradients, relative_error
from tests.discriminators import Conv, Projection, TwoHeads

FIRST = DATConfig(eps=30.0, delta_clip=0.3)
SECOND = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)


class Plain(nn.Module):
    """The same in the operations of the released code, which torch.compile could not trace."""

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        self.D = D

    def forward(self, x: Tensor, *args: Any) -> Any:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            out = self.D(x, *args)
            f, extras = (out[0], out[1:]) if isinstance(out, tuple) else (out, ())
            (gradient,) = torch.autograd.grad(f.sum(), x, create_graph=True)
            norm = (gradient.flatten(1).norm(dim=1) ** 2 + 1e-12) ** 0.5
            normalised = f / (norm.reshape(-1, *(1,) * (f.ndim - 1)) + f.abs())
        return (normalised, *extras) if extras else normalised


class Linear(nn.Module):
    """w . x + b, or the constant b where w is zero."""

    def __init__(self, w: list[float], b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.tensor(w).double()), nn.Parameter(torch.tensor(b).double())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + self.b


class Quadratic(nn.Module):
    """x'Ax / 2 with the gradient Ax, A = [[2, 1], [1, -3]]."""

    def forward(self, x: Tensor) -> Tensor:
        A = x.new_tensor([[2.0, 1.0], [1.0, -3.0]])
        return (x @ A * x).sum(1) / 2


def images() -> tuple[Tensor, Tensor]:
    x = torch.rand(10, 3, 8, 8, dtype=torch.float64) * 2 - 1
    return x[:5], x[5:] * 0.7


# --- the function ----------------------------------------------------------------------------------------------------


def test_linear_by_hand() -> None:
    """w = (3, 4), b = -1: f is 2, -1 and -5 beside a norm of 5; the gradient is 5 w / (5 + |f|)^2."""
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    out = GradientNormalised(Linear([3.0, 4.0], -1.0))(x)
    expected = torch.tensor([2 / 7, -1 / 6, -5 / 10], dtype=torch.float64)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    w = torch.tensor([3.0, 4.0], dtype=torch.float64)
    factors = torch.tensor([5 / 49, 5 / 36, 5 / 100], dtype=torch.float64)
    torch.testing.assert_close(gradient, factors[:, None] * w, rtol=1e-12, atol=0)


def test_every_sample_has_its_own_gradient() -> None:
    """At (1, 2): f = -3, Ax = (4, -5). At (0, -1): f = -3/2, Ax = (-1, 3). At (2, 1): f = 9/2, Ax = (5, -1)."""
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0], [2.0, 1.0]], dtype=torch.float64)
    f = torch.tensor([-3.0, -1.5, 4.5], dtype=torch.float64)
    norms = torch.tensor([41.0, 10.0, 26.0], dtype=torch.float64).sqrt()
    torch.testing.assert_close(GradientNormalised(Quadratic())(x), f / (norms + f.abs()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("b", [0.0, -2.0])
def test_all_derivatives_are_finite_where_f_is_constant(b: float) -> None:
    D = Linear([0.0, 0.0], b)
    x = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    out = GradientNormalised(D)(x)
    torch.testing.assert_close(out, torch.full_like(out, b / (1e-6 + abs(b))), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in D.parameters())


def test_gradient_of_a_piecewise_linear_discriminator_is_at_most_one() -> None:
    """So the paper proves; f's own gradient is longer here."""
    D = Conv().double()
    nn.init.normal_(D.head.weight, 0.0, 10.0)
    x = images()[0].requires_grad_()
    with torch.no_grad():
        D.head.bias -= D(x).mean()  # near zero, where the bound is reached
    lengths = []
    for net in (D, GradientNormalised(D)):
        (gradient,) = torch.autograd.grad(net(x).sum(), x)
        lengths.append(gradient.flatten(1).norm(dim=1))
    assert lengths[0].min() > 1
    assert 0.5 < lengths[1].max() <= 1


@pytest.mark.parametrize("kind", [Conv, TwoHeads], ids=lambda kind: kind.__name__)
def test_shape_and_further_outputs_are_those_of_the_discriminator(kind: type[nn.Module]) -> None:
    D = kind().double().eval()
    x, _ = images()
    out, plain = GradientNormalised(D)(x), Plain(D)(x)
    torch.testing.assert_close(out, plain, rtol=1e-12, atol=1e-14)
    if kind is TwoHeads:
        assert [o.shape for o in out] == [(5, 1), (5, 4)]


def test_squares_of_a_bfloat16_gradient_are_summed_in_float32() -> None:
    D = Conv()
    x, _ = images()
    with torch.autocast("cpu", torch.bfloat16):
        assert D(x.float()).dtype == torch.bfloat16
        out = GradientNormalised(D)(x.float())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, GradientNormalised(D)(x.float()), rtol=0.03, atol=0)


# --- steps of D ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "compile"),
    [(FIRST, False), (SECOND, False), pytest.param(SECOND, True, marks=pytest.mark.slow)],
    ids=["first", "second", "second-compiled"],
)
def test_step_equals_the_released_codes_operations(config: DATConfig, compile: bool) -> None:
    D = Conv(spectral_norm).double()
    assert_step_matches(
        GradientNormalised(D),
        *images(),
        config,
        "gan",
        tolerance=1e-9 if compile else 1e-11,
        compile=compile,
        reference_D=Plain(D),
    )


def test_step_of_a_conditional_discriminator() -> None:
    D = Projection().double()
    labels = {"args_real": (torch.tensor([0, 4, 2, 1, 1]),), "args_fake": (torch.tensor([3, 3, 0, 2, 4]),)}
    assert_step_matches(
        GradientNormalised(D), *images(), SECOND, tolerance=1e-11, reference_D=Plain(D), **labels
    )


def test_step_in_parts() -> None:
    D = Conv().double()
    assert_step_matches(
        GradientNormalised(D), *images(), FIRST, tolerance=1e-11, microbatch=2, reference_D=Plain(D)
    )


# --- other uses ------------------------------------------------------------------------------------------------------


def test_step_of_the_generator() -> None:
    found = []
    D = Conv().double().requires_grad_(False)
    xr, _ = images()
    for wrap in (GradientNormalised, Plain):
        G = nn.Conv2d(3, 3, 3, padding=1)
        torch.manual_seed(1)
        nn.init.normal_(G.weight)
        G = G.double()
        nn.init.zeros_(G.bias)
        generator_loss("gan", wrap(D)(G(xr))).backward()
        found.append(gradients(G))
    assert found[0].norm() > 1e-3
    assert relative_error(*found) < 1e-12


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_autograd(mode: Any) -> None:
    D = GradientNormalised(Conv(spectral_norm).double().eval())
    x, _ = images()
    expected = D(x).detach()
    with mode():
        out = D(x.clone())
    assert not out.requires_grad
    assert torch.equal(out, expected)


def test_power_iteration_runs_once_a_call() -> None:
    D = Conv(spectral_norm).double()
    plain = copy.deepcopy(D)
    x, _ = images()
    GradientNormalised(D)(x)
    plain(x)
    for name, buffer in plain.named_buffers():
        assert torch.equal(dict(D.named_buffers())[name], buffer)


def test_weights_stay_those_of_the_discriminator() -> None:
    D = Conv()
    optimizer, names = torch.optim.SGD(D.parameters(), 1.0), list(D.state_dict())
    before = D.head.weight.detach().clone()
    xr, xf = (x.float() for x in images())
    fastdat.dat_step(GradientNormalised(D), xr, xf, FIRST, compile=False).backward()
    optimizer.step()
    assert list(D.state_dict()) == names
    assert not torch.equal(D.head.weight, before)


def test_distributed_must_be_outermost() -> None:
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    with pytest.raises(
        ValueError, match=r"wrap the normalised D, DistributedDataParallel\(GradientNormalised\(D\)\)"
    ):
        GradientNormalised(wrapped)


def test_a_compiled_discriminator_is_unwrapped() -> None:
    D = Conv()
    assert GradientNormalised(torch.compile(D)).D is D


def test_batch_norms_are_refused_in_training_only() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(
        ValueError, match="its layers '1' normalise over the batch: use norms of single samples"
    ):
        GradientNormalised(net)
    net[1].eval()
    normalised = GradientNormalised(net)
    assert normalised(torch.randn(5, 3)).shape == (5, 1)
    net.train()
    with pytest.raises(ValueError, match="its layers '1' normalise over the batch"):
        normalised(torch.randn(5, 3))


def test_a_batch_norm_without_running_statistics_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="its layers '1' normalise over the batch"):
        GradientNormalised(net.eval())
