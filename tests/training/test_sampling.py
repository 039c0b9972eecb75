"""Samples of a generator that draws random numbers itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdat.training.noise import Noise
from fastdat.training.sampling import from_latents, generated, sample_grid


class Noisy(nn.Module):
    """Adds noise to z, as StyleGAN's layers do."""

    def forward(self, z: Tensor) -> Tensor:
        return z + torch.rand(z.shape)


def noise() -> Noise:
    return Noise(3, seed=5, device=torch.device("cpu"))


def test_samples_leave_everybodys_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    sample_grid(Noisy(), noise(), 5, 2)
    for _ in generated(Noisy(), noise(), 1, 5, 2):
        torch.rand(1)  # between two batches, the caller's own
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    for _ in range(3):
        torch.rand(1)
    assert torch.equal(after, torch.get_rng_state())


def test_each_batch_has_other_noise() -> None:
    z = torch.zeros(6, 3)
    torch.manual_seed(2)
    first, second, third = from_latents(Noisy(), z, (), 2)
    assert len({float(part[0, 0]) for part in (first, second, third)}) == 3
    torch.manual_seed(2)
    torch.testing.assert_close(
        torch.cat([first, second, third]), torch.cat([torch.rand(2, 3) for _ in range(3)])
    )
