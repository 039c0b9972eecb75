"""The MLPs of the nine Gaussians."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from fastdat.nets.mlp import MLP, Init, MLPDiscriminator, MLPGenerator


def test_shapes_and_parameters() -> None:
    G, D = MLPGenerator(), MLPDiscriminator()
    x = G(torch.randn(5, 16))
    assert x.shape == (5, 2)
    assert D(x).shape == (5,)
    assert [m.in_features for m in D if isinstance(m, nn.Linear)] == [2, 64, 64, 64, 64]
    assert isinstance(D[-1], nn.Linear)
    small = MLPGenerator(nz=3, dim=5, hidden=6, layers=1), MLPDiscriminator(dim=5, hidden=7, layers=2)
    widths = [[(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)] for net in small]
    assert widths == [[(3, 6), (6, 5)], [(5, 7), (7, 7), (7, 1)]]
    assert small[0].nz == 3
    hidden = 3 * (64 * 64 + 64)
    assert sum(p.numel() for p in G.parameters()) == (16 * 64 + 64) + hidden + (64 * 2 + 2)
    assert sum(p.numel() for p in D.parameters()) == (2 * 64 + 64) + hidden + (64 + 1)


@pytest.mark.parametrize(("init", "std"), [("kaiming", (2 / 256) ** 0.5), ("torch", (1 / 256 / 3) ** 0.5)])
def test_scale_of_the_initial_weights(init: Init, std: float) -> None:
    layer = MLP(256, 256, hidden=256, init=init, generator=torch.Generator().manual_seed(0))[0]
    assert isinstance(layer, nn.Linear)
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert (layer.bias == 0).all().item() == (init == "kaiming")


@pytest.mark.parametrize("net", [MLPGenerator, MLPDiscriminator])
def test_both_nets_pass_on_how_they_are_drawn(net: type[MLP]) -> None:
    for init in get_args(Init):
        drawn = net(dim=3, init=init, generator=torch.Generator().manual_seed(5))
        sizes = (16, 3) if net is MLPGenerator else (3, 1)
        expected = MLP(*sizes, init=init, generator=torch.Generator().manual_seed(5))
        assert len(drawn.state_dict()) == len(expected.state_dict()) == 10
        for ours, theirs in zip(drawn.parameters(), expected.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_torch_init_equals_the_default_of_linear() -> None:
    torch.manual_seed(3)
    theirs = nn.Linear(7, 5)
    torch.manual_seed(3)
    ours = MLP(7, 1, hidden=5, layers=1, init="torch")[0]
    assert isinstance(ours, nn.Linear)
    assert torch.allclose(ours.weight, theirs.weight)
    assert torch.allclose(ours.bias, theirs.bias)


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first, second = (MLPGenerator(generator=torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("size", ["inputs", "outputs", "hidden", "layers"])
def test_bad_sizes(size: str) -> None:
    with pytest.raises(ValueError, match=f"{size}=0"):
        MLP(**{"inputs": 2, "outputs": 2, size: 0})


def test_bad_init() -> None:
    with pytest.raises(ValueError, match="'kaiming', 'torch'; got 'he'"):
        MLP(2, 2, init="he")  # type: ignore[arg-type]
