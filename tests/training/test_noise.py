"""Noise is a function of (seed, stream, step)."""

from __future__ import annotations

import torch

from fastdat.training.noise import D_STEP, G_STEP, Noise

CPU = torch.device("cpu")


def test_noise_depends_on_nothing_but_its_arguments() -> None:
    noise = Noise(8, seed=1, device=CPU)
    first = noise.draw(D_STEP, 3, 5)
    assert first.shape == (5, 8)
    others = [
        noise.draw(G_STEP, 3, 5),
        noise.draw(D_STEP, 4, 5),
        Noise(8, seed=2, device=CPU).draw(D_STEP, 3, 5),
        Noise(8, seed=1, device=CPU, rank=1).draw(D_STEP, 3, 5),
    ]
    assert all(not torch.equal(first, other) for other in others)
    state = torch.get_rng_state()
    assert torch.equal(first, Noise(8, seed=1, device=CPU).draw(D_STEP, 3, 5))
    assert torch.equal(state, torch.get_rng_state()), "the global generator is not touched"


def test_noise_is_standard_normal() -> None:
    z = Noise(100, seed=0, device=CPU).draw(D_STEP, 0, 1000)
    assert abs(z.mean().item()) < 0.01
    assert abs(z.std().item() - 1) < 0.01
