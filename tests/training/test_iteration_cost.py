"""What an iteration costs, against counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fastdat.training import ConfigError, TrainConfig, preset
from fastdat.training.iteration_cost import BYTES_PER_PARAMETER, iteration_cost, nets_of
from fastdat.training.sample_cost import sample_cost

W_G, W_D = 16, 8
G_FLOPS = 2 * (
    128 * 16 * W_G  # z to 4x4
    + sum(
        2 * 9 * W_G**2 * (2 * s) ** 2 + W_G**2 * s**2 for s in (4, 8, 16)
    )  # blocks, shortcuts before up-sampling
    + 9 * W_G * 3 * 32**2
)
D_FLOPS = 2 * (
    9 * 3 * W_D * 32**2 + 16 * W_D**2 * 16**2 + 3 * W_D * 16**2  # the second convolution is folded with the pool
    + 9 * W_D**2 * 16**2 + 16 * W_D**2 * 8**2 + W_D**2 * 8**2
    + 4 * 9 * W_D**2 * 8**2
    + W_D
)  # fmt: skip
LAYERS = 11  # of each net
PRECISE = {"ngf": W_G, "ndf": W_D, "precision": "fp32"}


def config(name: str = "sngan-dat-cifar10", **changes: Any) -> TrainConfig:
    return preset(name).replace(PRECISE | changes)


def on_meta(*layers: nn.Module) -> Callable[[int], Any]:
    net = nn.Sequential(*layers).to("meta")
    return lambda samples: net(torch.empty(samples, 3, 6, 10, device="meta"))


def test_a_sample() -> None:
    cost = sample_cost(on_meta(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)))
    assert cost.flops == 2 * 9 * 3 * 5 * 60
    assert cost.written == 4 * 60 * (5 + 5 + 5 / 4)
    assert cost.saved == 4 * 60 * (3 + 5), (
        "the convolution keeps its input, ReLU its output, the pool the same"
    )
    assert cost.layers == 1


def test_a_convolution_before_a_pool_counts_as_folded() -> None:
    assert sample_cost(on_meta(nn.Conv2d(3, 5, 3, padding=1), nn.AvgPool2d(2))).flops == 2 * 16 * 3 * 5 * 15
    apart = sample_cost(on_meta(nn.Conv2d(3, 5, 3, padding=1, stride=(1, 2)), nn.AvgPool2d(2)))
    assert apart.flops == 2 * 9 * 3 * 5 * 30, "with a stride it is not folded"


def test_the_nets() -> None:
    nets = nets_of(config())
    assert (nets.G.flops, nets.D.flops) == (G_FLOPS, D_FLOPS)
    assert (nets.G.layers, nets.D.layers) == (LAYERS, LAYERS)
    assert nets.auxiliary.flops == 0
    half = nets_of(config(precision="bf16"))
    assert half.G.saved == nets.G.saved / 2
    assert half.G.flops == nets.G.flops


@pytest.mark.parametrize(("second_order", "passes"), [(False, 5), (True, 7)])
def test_an_iteration(second_order: bool, passes: int) -> None:
    """3 D steps with a batch of 12 on 2 GPUs."""
    whole = config(n_dis=3, batch_size=12, **{"dat.second_order": second_order})
    cost, nets = iteration_cost(whole, gpus=2), nets_of(whole)
    assert cost.flops == 6 * ((3 + 3) * G_FLOPS + (3 * 2 * passes + 2) * D_FLOPS)
    assert cost.launches == LAYERS * ((3 + 3) + 3 * passes + 2)
    of_d_step = (2 if second_order else 1) * 2 * nets.D.saved
    assert cost.activations == 6 * max(nets.G.saved + nets.D.saved, of_d_step)
    assert cost.images == 6 * 6 * 4 * 3 * 32**2
    assert cost.fixed == BYTES_PER_PARAMETER * (nets.parameters_g + nets.parameters_d)
    assert cost.gradients == 4 * (3 * nets.parameters_d + nets.parameters_g)
    assert cost.exchanges == 7 * (3 + 2), (
        "G's 7 batch norms, in 3 passes for D and in 2 of G's own step; D has none"
    )
    assert cost.steps == 4


def test_batch_norms_of_d_exchange_too() -> None:
    """DCGAN: 3 in G, 2 in D, whose 2 D steps pass it 5 times for each of 3 microbatches, and G's step twice."""
    cost = iteration_cost(config("dcgan-dat-cifar10", n_dis=2, batch_size=12, microbatch=5))
    assert cost.exchanges == 3 * (2 + 2) + 2 * (2 * 3 * 5 + 2)


def test_microbatches_are_launched_apart() -> None:
    """Batch 12 in parts of 5: three parts. Memory falls where D's step needs more of it than G's."""
    wide = config(batch_size=12, ndf=64, **{"dat.second_order": True})
    parts = wide.replace({"microbatch": 5})
    cost, nets = iteration_cost(parts), nets_of(parts)
    assert cost.launches == LAYERS * (8 + 5 * 3 * 7 + 2)
    assert cost.flops == iteration_cost(wide).flops
    assert iteration_cost(wide).activations == 12 * 4 * nets.D.saved
    assert cost.activations == max(12 * (nets.G.saved + nets.D.saved), 5 * 4 * nets.D.saved)
    assert cost.activations < iteration_cost(wide).activations


def test_what_else_is_counted() -> None:
    plain, base = nets_of(config()), iteration_cost(config())
    assert iteration_cost(config(ema=0.9)).fixed == base.fixed + 4 * plain.parameters_g
    assert iteration_cost(config(loss="rpgan")).flops == base.flops + 64 * D_FLOPS, "reals in G's step"
    ssgan = nets_of(config("ssgan-dat-cifar10"))
    assert ssgan.auxiliary.flops >= D_FLOPS, "D sees the rotated images, too"
    labelled = iteration_cost(config("csngan-dat-cifar10"))
    assert labelled.flops >= base.flops


def test_what_is_not_counted() -> None:
    with pytest.raises(ConfigError, match="model mlp has points, not images"):
        iteration_cost(preset("mlp-dat-gaussians"))
    with pytest.raises(
        ConfigError, match="dat_generator=pass: what an attack in G's step costs was not measured"
    ):
        iteration_cost(config(dat_generator="pass"))
