"""The nets of Table III: layer by layer, their initial weights, and D in the step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastdat
from fastdat.nets import Table3Discriminator, Table3Generator
from fastdat.nets.table3_nets import PHI


def convolutions(net: nn.Module) -> list[tuple[int, int, int, int]]:
    """(channels in, channels out, kernel, stride) of each, from first to last."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        for m in net.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]


def test_layers() -> None:
    G, D = Table3Generator(), Table3Discriminator()
    assert convolutions(G) == [(128, 256, 4, 1), (256, 128, 4, 2), (128, 64, 4, 2), (64, 3, 4, 2)]
    assert convolutions(D) == [(3, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 1, 4, 1)]
    assert G.nz == 128
    kinds = [type(m).__name__ for m in D.modules() if not list(m.children())]
    assert kinds == [*["Conv2d", "BatchNorm2d", "LeakyReLU"] * 3, "Conv2d"]
    kinds = [type(m).__name__ for m in G.modules() if not list(m.children())]
    assert kinds == [*["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 3, "ConvTranspose2d", "Tanh"]
    assert {m.negative_slope for m in D.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_parameters() -> None:
    """By hand: kernels of 16 weights, and two numbers for each channel of a batch norm; no bias."""
    hidden = 64 + 128 + 256
    expected_g = 16 * (128 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * hidden
    expected_d = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256) + 2 * hidden
    sizes = [sum(p.numel() for p in net.parameters()) for net in (Table3Generator(), Table3Discriminator())]
    assert sizes == [expected_g, expected_d] == [1_183_616, 663_424]


def test_shapes_and_widths() -> None:
    G, D = Table3Generator(ngf=4, nz=7), Table3Discriminator(ndf=2)
    images = G(torch.randn(3, 7))
    assert images.shape == (3, 3, 32, 32)
    assert images.abs().max() <= 1
    assert D(images).shape == (3, 1)
    assert [c[1] for c in convolutions(G)] == [16, 8, 4, 3]
    assert [c[1] for c in convolutions(D)] == [2, 4, 8, 1]


def test_phi_is_what_the_last_batch_norm_gets() -> None:
    D = Table3Discriminator(ndf=2)
    layer = D.get_submodule(PHI)
    assert isinstance(layer, nn.Conv2d)
    assert layer.out_channels == 8
    outputs = []
    layer.register_forward_hook(lambda *found: outputs.append(found[2]))
    norm = [m for m in D.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    norm.register_forward_pre_hook(lambda _, found: outputs.append(found[0]))
    D(torch.randn(2, 3, 32, 32))
    assert len(outputs) == 2
    assert outputs[0] is outputs[1]
    assert outputs[0].shape == (2, 8, 4, 4)


def test_initial_weights() -> None:
    for net in (Table3Generator(), Table3Discriminator()):
        weights = torch.cat([p.flatten() for name, p in net.named_parameters() if p.ndim == 4])
        assert weights.std().item() == pytest.approx(0.02, rel=0.01)
        assert weights.mean().item() == pytest.approx(0, abs=2e-4)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert torch.cat([m.weight for m in norms]).std().item() == pytest.approx(0.02, rel=0.2)
        assert not torch.cat([m.bias for m in norms]).any()


@pytest.mark.parametrize("net", [Table3Generator, Table3Discriminator])
def test_another_resolution_is_an_error(net: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=rf"{net.__name__} exists at resolution 32; got resolution=48"):
        net(48)
    width = "ngf" if net is Table3Generator else "ndf"
    with pytest.raises(ValueError, match=f"{width} must be at least 1; got {width}=0"):
        net(**{width: 0})


def test_in_the_step_with_rfm() -> None:
    from fastdat.regularizers import RFM

    D = Table3Discriminator(ndf=2)
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    loss, info = fastdat.dat_step(
        D, x, -0.5 * x, loss="wgan", compile=False, regularizers=(RFM(PHI),), with_info=True
    )
    loss.backward()
    assert info.terms["rfm"] > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in D.parameters())
