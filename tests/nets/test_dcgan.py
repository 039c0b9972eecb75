"""DCGAN: four convolutions per net, every resolution, and D in the step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastdat
from fastdat.nets import DCGANDiscriminator, DCGANGenerator


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [28, 32, 48, 64])
def test_shapes(resolution: int, channels: int) -> None:
    G = DCGANGenerator(resolution, ngf=4, nz=7, channels=channels)
    D = DCGANDiscriminator(resolution, ndf=4, channels=channels)
    sizes = {28: [4, 7, 14, 28], 32: [4, 8, 16, 32], 48: [6, 12, 24, 48], 64: [8, 16, 32, 64]}[resolution]
    maps: list[torch.Size] = []
    for conv in (*G.convs, *D.convs):
        conv.register_forward_hook(lambda *found: maps.append(found[2].shape[1:]))
    images = G(torch.randn(3, 7))
    assert maps == [(c, size, size) for c, size in zip((16, 8, 4, channels), sizes, strict=True)]
    maps.clear()
    assert images.shape == (3, channels, resolution, resolution)
    assert images.abs().max() <= 1
    assert D(images).shape == (3, 1)
    assert maps == [*((c, size, size) for c, size in zip((4, 8, 16), sizes[2::-1], strict=True)), (1, 1, 1)]


def test_four_convolutions_and_batch_norm() -> None:
    G, D = DCGANGenerator(32), DCGANDiscriminator(32)
    assert G.nz == 100
    for net, kind in ((G, nn.ConvTranspose2d), (D, nn.Conv2d)):
        assert sum(isinstance(m, kind) for m in net.modules()) == 4
        assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    sizes = [sum(p.numel() for p in net.parameters()) for net in (G, D)]
    assert sizes == [1_068_931, 663_361]


def test_initial_weights() -> None:
    for net in (DCGANGenerator(32), DCGANDiscriminator(32)):
        assert net.convs[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(net.convs[1].weight.mean().item()) < 2e-4
        norm = next(norm for norm in net.norms if isinstance(norm, nn.BatchNorm2d))
        assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
        assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3)
        assert not norm.bias.any()
        assert not net.convs[-1].bias.any()
    assert not DCGANDiscriminator(32).convs[0].bias.any()


def test_the_first_layer_of_d_has_no_batch_norm() -> None:
    D = DCGANDiscriminator(32, ndf=4).eval()
    assert isinstance(D.norms[0], nn.Identity)
    assert D.convs[0].bias is not None


@pytest.mark.parametrize("net", [DCGANGenerator, DCGANDiscriminator])
def test_an_unknown_resolution_lists_the_known_ones(net: type[nn.Module]) -> None:
    with pytest.raises(
        ValueError, match=rf"{net.__name__} exists at resolution 28, 32, 48, 64; got resolution=33"
    ):
        net(33)


@pytest.mark.parametrize(
    ("net", "size"),
    [
        *((DCGANGenerator, size) for size in ("ngf", "nz", "channels")),
        *((DCGANDiscriminator, size) for size in ("ndf", "channels")),
    ],
)
def test_bad_sizes(net: type[nn.Module], size: str) -> None:
    with pytest.raises(ValueError, match=f"{size} must be at least 1; got {size}=0"):
        net(32, **{size: 0})


def test_microbatches_are_refused() -> None:
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    with pytest.raises(ValueError, match="microbatch needs a D that treats its samples independently"):
        fastdat.dat_step(DCGANDiscriminator(32, ndf=4), x, -x, compile=False, microbatch=2)
