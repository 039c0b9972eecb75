"""The same training in larger batches: rules for the settings, and the attack, which moves each image as before."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.training import ConfigError, TrainConfig, preset
from fastdat.training.large_batch import at_batch

BATCH, LARGE = 8, 64


@pytest.mark.parametrize(("batch", "k"), [(2048, 32), (8192, 128)])
@pytest.mark.parametrize("name", ["sngan-lsun-bedroom", "sngan-dat-lsun-bedroom"])
def test_presets(name: str, batch: int, k: int) -> None:
    """Table I's, but for what follows the batch."""
    small, large = preset(name), preset(f"{name}-batch{batch}")
    assert (large.batch_size, large.steps) == (batch, math.ceil(100_000 / k))
    assert large.lr == pytest.approx(2e-4 * math.sqrt(k), rel=1e-12)
    assert 0 <= large.steps * batch - small.steps * 64 < batch, "as many images, and a part of a step"
    assert large.eval.every == round(10_000 / k)
    assert large.checkpoints.every == round(1000 / k)
    assert large.sample_every == round(500 / k)
    same = {"batch_size": 64, "steps": small.steps, "lr": small.lr, "log_every": 50, "sample_every": 500}
    assert large.replace(same | {"checkpoints.every": 1000, "eval.every": 10_000}) == small


def test_rules() -> None:
    small = TrainConfig(batch_size=100, lr=3e-4, steps=1001, ema=0.99, log_every=2).replace(
        {"eval.every": None}
    )
    large = at_batch(small.replace({"checkpoints.keep_every": 300, "monitor.every": 40}), 400)
    assert large.lr == pytest.approx(6e-4)
    assert large.steps == 251, "rounded up"
    assert large.ema == pytest.approx(0.99**4, rel=1e-12)
    assert large.log_every == 1, "not 0"
    assert (large.eval.every, large.checkpoints.keep_every, large.monitor.every) == (None, 75, 10)
    assert (large.dat, large.betas, large.n_dis) == (small.dat, small.betas, small.n_dis)
    back = at_batch(large, 100)
    assert (back.lr, back.ema) == (pytest.approx(3e-4), pytest.approx(0.99)), "smaller batches, too"


def test_what_moves_along_a_cosine() -> None:
    """Its end follows the batch as its start does; beta2 stays, as betas do."""
    small = preset("r3gan-cifar10").replace({"cosine.steps": 20_001})
    large = at_batch(small, 2048)
    assert large.cosine.lr == pytest.approx(2 * 5e-5)
    assert large.cosine.lr / large.lr == pytest.approx(5e-5 / 2e-4)
    assert large.cosine.steps == 5001, "rounded up"
    assert large.cosine.beta2 == small.cosine.beta2 == 0.99
    constant = at_batch(preset("sngan-dat-cifar10"), 128).cosine
    assert (constant.lr, constant.steps) == (None, None)


def test_a_strength_that_depends_on_the_batch_is_refused() -> None:
    released = preset("sngan-dat-lsun-bedroom").replace({"dat.eps_batch": None})
    with pytest.raises(
        ConfigError, match=r"move 32 times less with a batch of 2,048: set dat.eps_batch=64, which"
    ):
        at_batch(released, 2048)
    in_g = preset("sngan-lsun-bedroom").replace({"dat_generator": "pass", "dat.eps_batch": None})
    with pytest.raises(ConfigError, match="move 32 times less"):
        at_batch(in_g, 2048)


@pytest.fixture
def D() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 4 * 5, 1))
    return net.double()


@pytest.fixture
def sides() -> tuple[Tensor, Tensor]:
    """All reals are brighter than all fakes, so D's batch means differ in the same direction in every part."""
    generator = torch.Generator().manual_seed(3)
    real, fake = (torch.rand(LARGE, 3, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    return real * 0.5, fake * 0.5 - 0.5


def deltas(
    D: nn.Module, sides: tuple[Tensor, Tensor], config: DATConfig, microbatch: int | None = None
) -> Tensor:
    """How far each image is moved: (2, N, C, H, W), reals first."""
    _, info = fastdat.dat_step(D, *sides, config=config, compile=False, microbatch=microbatch, with_info=True)
    assert info.xr_adv is not None
    assert info.xf_adv is not None
    return torch.stack([info.xr_adv - sides[0], info.xf_adv - sides[1]])


def test_an_image_moves_alike_in_batches_of_any_size(D: nn.Module, sides: tuple[Tensor, Tensor]) -> None:
    """In a batch of 64, in its parts of 8 as batches of their own, and in microbatches of 32."""
    whole = deltas(D, sides, DATConfig())
    assert whole.abs().max() > 1e-3
    for first in range(0, LARGE, BATCH):
        rows = slice(first, first + BATCH)
        part = deltas(D, (sides[0][rows], sides[1][rows]), DATConfig())
        torch.testing.assert_close(part, whole[:, rows], rtol=0, atol=1e-15)
    torch.testing.assert_close(deltas(D, sides, DATConfig(), microbatch=32), whole, rtol=0, atol=1e-15)


def test_the_released_code_moves_it_less_in_larger_batches(
    D: nn.Module, sides: tuple[Tensor, Tensor]
) -> None:
    """eps_batch=None divides by the batch: 8 times less in a batch of 64 than in one of 8."""
    released = DATConfig(eps_batch=None)
    whole = deltas(D, sides, released)
    part = deltas(D, (sides[0][:BATCH], sides[1][:BATCH]), released)
    torch.testing.assert_close(part, 8 * whole[:, :BATCH], rtol=1e-12, atol=1e-15)


def test_where_a_part_has_another_sign_it_moves_the_other_way(
    D: nn.Module, sides: tuple[Tensor, Tensor]
) -> None:
    """The means are those of the whole batch, so accumulated microbatches are not batches of their own."""
    real, fake = (side.clone() for side in sides)
    real[:BATCH], fake[:BATCH] = sides[1][:BATCH], sides[0][:BATCH]
    whole = deltas(D, (real, fake), DATConfig())
    part = deltas(D, (real[:BATCH], fake[:BATCH]), DATConfig())
    torch.testing.assert_close(part, -whole[:, :BATCH], rtol=0, atol=1e-15)
    torch.testing.assert_close(
        deltas(D, (real, fake), DATConfig(), microbatch=BATCH), whole, rtol=0, atol=1e-15
    )
