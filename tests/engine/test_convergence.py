"""A small GAN trained with dat_step follows the one trained with the reference, step for step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fastdat
from fastdat import DATConfig
from fastdat.losses import generator_loss


def ring(n: int) -> Tensor:
    """Eight Gaussians on a circle, (n, 2) in [-1, 1]."""
    angle = torch.randint(8, (n,)) * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], 1) * 0.8 + 0.02 * torch.randn(n, 2)


def train(step: object, config: DATConfig, steps: int, dtype: torch.dtype, **arguments: object) -> Tensor:
    """Losses of D and mean logits of each step, (steps, 2); the same seed gives the same start and data."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh())
    D = nn.Sequential(
        spectral_norm(nn.Linear(2, 32)), nn.Softplus(), spectral_norm(nn.Linear(32, 32)), nn.Softplus(),
        spectral_norm(nn.Linear(32, 1)),
    )  # fmt: skip
    data = [(ring(32), torch.randn(32, 4)) for _ in range(steps)]
    G, D = G.to(dtype), D.to(dtype)
    optimizer_G = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.5, 0.999))
    optimizer_D = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.999))
    curve = []
    for real, z in data:
        fake = G(z.to(dtype))
        loss, info = step(D, real.to(dtype), fake.detach(), config, "gan", with_info=True, **arguments)
        optimizer_D.zero_grad()
        loss.backward()
        optimizer_D.step()
        optimizer_G.zero_grad()
        generator_loss("gan", D(fake)).backward()
        optimizer_G.step()
        curve.append(
            torch.stack([loss.detach(), info.clean_logits_real.mean() - info.clean_logits_fake.mean()])
        )
    return torch.stack(curve)


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
def test_eager_follows_the_reference(second_order: bool) -> None:
    config = DATConfig(eps=20.0, second_order=second_order)
    ours = train(fastdat.dat_step, config, 60, torch.float64, compile=False)
    plain = train(fastdat.reference.dat_step, config, 60, torch.float64)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-8)
    assert (ours - ours[0]).abs().max() > 0.02, "nothing was trained"


@pytest.mark.slow
def test_compiled_follows_the_reference() -> None:
    """In fp32 the two may part only as rounding lets them."""
    config = DATConfig(eps=20.0, second_order=True)
    ours = train(fastdat.dat_step, config, 60, torch.float32)
    plain = train(fastdat.reference.dat_step, config, 60, torch.float32)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)
