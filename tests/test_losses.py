"""The four losses, and a user's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from fastdat.losses import LOSSES, Loss, discriminator_loss, generator_loss, get_loss

T = torch.linspace(-3, 3, 13, dtype=torch.float64)
FORMULAS = {
    "hinge": (-F.relu(1 - T), -F.relu(1 + T), -T),
    "gan": (torch.log(torch.sigmoid(T)), torch.log(1 - torch.sigmoid(T)), -torch.log(torch.sigmoid(T))),
    "lsgan": (-((T - 1) ** 2), -(T**2), (T - 1) ** 2),
    "wgan": (T, -T, -T),
}


@pytest.mark.parametrize("name", LOSSES)
def test_formulas(name: str) -> None:
    loss = get_loss(name)
    g1, g2, generator = FORMULAS[name]
    torch.testing.assert_close(loss.g1(T), g1)
    torch.testing.assert_close(loss.g2(T), g2)
    torch.testing.assert_close(generator_loss(name, T), generator.mean())
    torch.testing.assert_close(
        discriminator_loss(loss, T, T + 1), -(loss.g1(T).mean() + loss.g2(T + 1).mean())
    )


def test_gan_loss_keeps_its_gradient_far_out() -> None:
    t = torch.tensor([-200.0, 200.0], requires_grad=True)
    (grad,) = torch.autograd.grad(get_loss("gan").g1(t).sum(), t)
    torch.testing.assert_close(grad, torch.tensor([1.0, 0.0]))


def test_own_loss() -> None:
    class Own:
        def g1(self, t: torch.Tensor) -> torch.Tensor:
            return -torch.exp(-t)

        def g2(self, t: torch.Tensor) -> torch.Tensor:
            return 1 - t

    own = Own()
    assert isinstance(own, Loss)
    assert get_loss(own) is own
    torch.testing.assert_close(generator_loss(own, T), torch.exp(-T).mean())


def test_unhashable_loss() -> None:
    @dataclass
    class Unhashable:
        def g1(self, t: torch.Tensor) -> torch.Tensor:
            return t

        g2 = g1

    with pytest.raises(TypeError, match="Unhashable a plain class or a frozen dataclass"):
        get_loss(Unhashable())
