"""SAN's last layer: values and gradients by hand, its start, and DAT steps of a D that ends in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fastdat
from fastdat import DATConfig
from fastdat.losses import generator_loss
from fastdat.nets import SANLinear
from tests.compare import assert_step_matches
from tests.discriminators import Conv

FIRST = DATConfig(eps=30.0, delta_clip=0.3)
SECOND = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)
H = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.0, -1.0]], dtype=torch.float64)


def layer() -> SANLinear:
    """omega = (3, 4) / 5, s = 2, b = (0.5, -1): a weight whose length is not 1."""
    net = SANLinear(2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[30.0, 40.0]]))
        net.scale.fill_(2.0)
        net.bias.copy_(torch.tensor([0.5, -1.0]))
    return net


#: 2 <h + b, omega>, of h + b = (1.5, 1), (-2.5, -0.5), (0.5, -2).
VALUES = torch.tensor([[3.4], [-3.8], [-2.6]], dtype=torch.float64)


class SAN(Conv):
    """A D that ends in the layer and returns what that returns."""

    def __init__(self) -> None:
        super().__init__(spectral_norm)
        self.head = SANLinear(8)
        nn.init.normal_(self.head.bias)


def images() -> tuple[Tensor, Tensor]:
    x = torch.rand(10, 3, 8, 8, dtype=torch.float64) * 2 - 1
    return x[:5], x[5:] * 0.7


# --- the layer -------------------------------------------------------------------------------------------------------


def test_values_by_hand() -> None:
    net = layer()
    fun, direction = net(H)
    torch.testing.assert_close(fun, VALUES, rtol=1e-12, atol=0)
    torch.testing.assert_close(direction, VALUES, rtol=1e-12, atol=0)
    torch.testing.assert_close(net.eval()(H), VALUES, rtol=1e-12, atol=0)


def test_without_a_bias() -> None:
    net = SANLinear(3, bias=False)
    assert [name for name, _ in net.named_parameters()] == ["weight", "scale"]
    h = torch.randn(4, 3)
    torch.testing.assert_close(net(-h)[0], -net(h)[0])


def test_logits_train_everything_but_the_direction() -> None:
    net, h = layer(), H.clone().requires_grad_()
    net(h)[0].sum().backward()
    omega = torch.tensor([0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(h.grad, (2 * omega).expand(3, 2))
    torch.testing.assert_close(net.bias.grad, 6 * omega)
    torch.testing.assert_close(net.scale.grad, VALUES.sum().reshape(1) / 2)
    assert net.weight.grad is None


def test_direction_values_train_the_direction_alone() -> None:
    """The gradient is s / ||w|| times the sum of h + b, (-0.5, -1.5), without its part along omega, -1.5."""
    net, h = layer(), H.clone().requires_grad_()
    net(h)[1].sum().backward()
    expected = 2 / 50 * torch.tensor([[-0.5 + 1.5 * 0.6, -1.5 + 1.5 * 0.8]], dtype=torch.float64)
    torch.testing.assert_close(net.weight.grad, expected, rtol=1e-12, atol=1e-15)
    assert h.grad is None
    assert net.bias.grad is None
    assert net.scale.grad is None


def test_logits_in_evaluation_mode_train_everything() -> None:
    net, h = layer().eval(), H.clone().requires_grad_()
    net(h).sum().backward()
    assert all(t.grad is not None and t.grad.norm() > 0 for t in (h, *net.parameters()))


def test_the_term_turns_the_direction_to_where_reals_and_fakes_are_furthest_apart() -> None:
    net = SANLinear(3, bias=False)
    apart = torch.tensor([2.0, -1.0, 2.0]) / 3
    real, fake = torch.randn(50, 3) + 4 * apart, torch.randn(50, 3) - 4 * apart
    furthest = torch.nn.functional.normalize(real.mean(0) - fake.mean(0), dim=0)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (net(fake)[1].mean() - net(real)[1].mean()).backward()
        optimizer.step()
    torch.testing.assert_close(torch.nn.functional.normalize(net.weight, dim=1)[0], furthest)


def test_length_of_the_weight_changes_nothing() -> None:
    net, longer = layer(), layer()
    with torch.no_grad():
        longer.weight *= 7
    torch.testing.assert_close(longer(H), net(H), rtol=1e-12, atol=0)
    net(H)[1].square().sum().backward()
    assert (net.weight.grad * net.weight).sum().abs() < 1e-12 * net.weight.grad.norm() * net.weight.norm()


def test_starts_as_a_linear_layer() -> None:
    torch.manual_seed(3)
    plain = nn.Linear(5, 1, bias=False)
    torch.manual_seed(3)
    net = SANLinear(5)
    h = torch.randn(4, 5)
    torch.testing.assert_close(net(h)[0], plain(h))
    assert net.weight.norm().item() == pytest.approx(1, rel=1e-6)
    assert not net.bias.any()


def test_no_features() -> None:
    with pytest.raises(ValueError, match="in_features must be at least 1; got in_features=0"):
        SANLinear(0)


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "compile"),
    [(FIRST, False), (SECOND, False), pytest.param(SECOND, True, marks=pytest.mark.slow)],
    ids=["first", "second", "second-compiled"],
)
def test_step(config: DATConfig, compile: bool) -> None:
    D = SAN().double()
    assert_step_matches(D, *images(), config, "gan", tolerance=1e-11, compile=compile)


def test_loss_of_a_step_is_that_of_the_logits() -> None:
    """And no gradient of it reaches the direction."""
    D = SAN().double()
    xr, xf = images()
    config = DATConfig(eps=0.0)
    loss = fastdat.dat_step(D, xr, xf, config, "wgan", compile=False)
    loss.backward()
    with torch.no_grad():
        expected = D.eval()(xf).mean() - D(xr).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    assert D.head.weight.grad is None or not D.head.weight.grad.any()
    assert D.head.scale.grad.any()


def test_step_of_the_generator() -> None:
    """A frozen D gives G the same gradient in both modes; the second call takes the spectral norm of the first."""
    D: Any = SAN().double().requires_grad_(False)
    x = images()[0].requires_grad_()
    (training,) = torch.autograd.grad(generator_loss("hinge", D(x)[0]), x)
    (evaluation,) = torch.autograd.grad(generator_loss("hinge", D.eval()(x)), x)
    assert training.norm() > 1e-3
    torch.testing.assert_close(training, evaluation, rtol=1e-12, atol=1e-15)
