"""Noise is a function of (seed, stream, step)."""

from __future__ import annotations

import torch
from torch import Tensor

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


def drawn(noise: Noise, stream: int = D_STEP, step: int = 3) -> list[Tensor]:
    """Of every kind; 64 numbers of each, so that two streams are not equal by chance."""
    (labels,) = noise.labels(stream, step, 64)
    own = torch.rand(64, generator=noise.generator(stream, step), device=CPU)
    return [noise.draw(stream, step, 8).flatten(), labels, noise.uniform(stream, step, 16, 4).flatten(), own]


def conditional(seed: int = 1, rank: int = 0, attempt: int = 0) -> Noise:
    noise = Noise(8, seed=seed, device=CPU, classes=5, rank=rank)
    noise.attempt = attempt
    return noise


def test_every_kind_of_draw_depends_on_all_that_it_should() -> None:
    first = drawn(conditional())
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(conditional()), strict=True))
    for other in (
        drawn(conditional(seed=2)),
        drawn(conditional(rank=1)),
        drawn(conditional(attempt=1)),
        drawn(conditional(), stream=G_STEP),
        drawn(conditional(), step=4),
    ):
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    _, labels, uniform, own = first
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3, 4]
    assert not torch.equal(uniform, own)
    assert Noise(8, seed=1, device=CPU).labels(D_STEP, 3, 5) == ()


def test_each_kind_of_draw_has_a_seed_of_its_own() -> None:
    """Labels, say, would otherwise depend on z."""
    noise = conditional()
    seeds = {noise.generator(D_STEP, 3).initial_seed()}
    for draw in (noise.draw, noise.labels, lambda *of: noise.uniform(*of, 2)):
        draw(D_STEP, 3, 5)
        seeds.add(noise._generator.initial_seed())
    assert len(seeds) == 4


def test_draws_are_made_on_their_device_whatever_the_default_is() -> None:
    noise = conditional()
    with torch.device("meta"):
        (labels,) = noise.labels(D_STEP, 3, 5)
        tensors = [noise.draw(D_STEP, 3, 5), labels, noise.uniform(D_STEP, 3, 5, 2)]
        assert [x.device for x in tensors] == [CPU] * 3
        assert noise.generator(D_STEP, 3).device == CPU
    assert [x.shape for x in tensors] == [(5, 8), (5,), (5, 2)]


def test_another_seed_for_the_same_net() -> None:
    """As on the first attempt: what a callback sees does not depend on rollbacks."""
    again = conditional(rank=2, attempt=1).reseeded(6)
    assert all(torch.equal(a, b) for a, b in zip(drawn(again), drawn(conditional(seed=6)), strict=True))
