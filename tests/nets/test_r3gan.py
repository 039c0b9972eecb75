"""R3GAN: sizes, the filters pixel by pixel, the nets written out as sums, their start, and DAT steps."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastdat import DATConfig
from fastdat.nets import R3GANDiscriminator, R3GANGenerator
from fastdat.nets.r3gan import Block, downsampled, upsampled
from tests.compare import assert_step_matches

FIRST = DATConfig(eps=30.0, delta_clip=0.3)
SECOND = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def drawn(net: nn.Module) -> nn.Module:
    """In float64, with all parameters drawn: the zeros of the start would hide most of a block."""
    for parameter in net.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        nn.init.normal_(parameter, 0.0, 1 / math.sqrt(fan_in))
    return net.double()


# --- sizes -----------------------------------------------------------------------------------------------------------


def of_blocks(width: int) -> int:
    """Two blocks: 1x1 convs from and to twice the width, a 3x3 conv of 16 channels a group, two biases."""
    inner = 2 * width
    return 2 * (width * inner + inner * 16 * 9 + inner * width + 2 * inner)


@pytest.mark.parametrize(
    ("resolution", "widths", "generator", "discriminator"),
    [
        (32, (768,) * 4, 20_732_160, 20_683_776),
        (64, (768,) * 4 + (384,), 22_429_824, 22_381_440),
        (256, (768,) * 4 + (384, 192, 96), 23_057_952, 23_009_568),
    ],
)
def test_parameter_counts(
    resolution: int, widths: tuple[int, ...], generator: int, discriminator: int
) -> None:
    """At 256 pixels these are the paper's 23.06 and 23.01 million."""
    with torch.device("meta"):
        G, D = R3GANGenerator(resolution), R3GANDiscriminator(resolution)
    inner = sum(map(of_blocks, widths)) + sum(a * b for a, b in pairwise(widths) if a != b)
    assert count(G) == 64 * 768 + 16 * 768 + inner + 3 * widths[-1] == generator
    assert count(D) == 3 * widths[-1] + inner + 16 * 768 + 768 == discriminator


def test_defaults_are_those_of_cifar10() -> None:
    with torch.device("meta"):
        G, D = R3GANGenerator(), R3GANDiscriminator()
    assert (G.resolution, D.resolution, G.nz) == (32, 32, 64)
    blocks = [m for m in D.modules() if isinstance(m, Block)]
    assert len(blocks) == 8
    assert {block.conv2.groups for block in blocks} == {96}


@settings(max_examples=5, deadline=None)
@given(n=st.integers(2, 4), eighth=st.integers(1, 3), nz=st.integers(1, 7), blocks=st.integers(1, 3))
def test_shapes_for_any_width(n: int, eighth: int, nz: int, blocks: int) -> None:
    images = R3GANGenerator(32, 8 * eighth, nz, blocks=blocks)(torch.randn(n, nz))
    assert images.shape == (n, 3, 32, 32)
    assert R3GANDiscriminator(32, 8 * eighth, blocks=blocks)(images).shape == (n, 1)


@pytest.mark.parametrize("resolution", [64, 256])
def test_larger_resolutions(resolution: int) -> None:
    """From 64 pixels on the width becomes smaller, and with it the number of groups."""
    full = 64 if resolution == 256 else 16
    G, D = (
        R3GANGenerator(resolution, full, 5, blocks=1),
        R3GANDiscriminator(resolution, full, blocks=1),
    )
    images = G(torch.randn(2, 5))
    assert images.shape == (2, 3, resolution, resolution)
    assert D(images).shape == (2, 1)
    groups = [full // 8 // divisor for divisor in (1, 1, 1, 1, 2, 4, 8)][: int(math.log2(resolution)) - 1]
    for net, expected in ((G, groups), (D, groups[::-1])):
        assert [m.conv2.groups for m in net.modules() if isinstance(m, Block)] == expected


def test_a_cardinality_of_ones_own() -> None:
    for net in (
        R3GANGenerator(64, 6, blocks=1, cardinality=4),
        R3GANDiscriminator(64, 6, blocks=1, cardinality=4),
    ):
        groups = sorted(m.conv2.groups for m in net.modules() if isinstance(m, Block))
        assert groups == [2, 4, 4, 4, 4]


def test_bad_sizes() -> None:
    with pytest.raises(
        ValueError, match="R3GANGenerator exists at resolution 32, 64, 256; got resolution=33"
    ):
        R3GANGenerator(33)
    with pytest.raises(ValueError, match="ngf must be a positive multiple of 8; got ngf=12"):
        R3GANGenerator(32, 12)
    with pytest.raises(ValueError, match="ndf must be a positive multiple of 16; got ndf=8"):
        R3GANDiscriminator(64, 8)
    with pytest.raises(ValueError, match="cardinality must divide 2 ndf = 12; got cardinality=5"):
        R3GANDiscriminator(32, 6, cardinality=5)
    with pytest.raises(ValueError, match="cardinality must be a positive multiple of 2; got cardinality=3"):
        R3GANDiscriminator(64, 6, cardinality=3)
    with pytest.raises(ValueError, match="cardinality must be a positive multiple of 1; got cardinality=0"):
        R3GANDiscriminator(32, 6, cardinality=0)
    with pytest.raises(ValueError, match="blocks must be at least 1; got blocks=0"):
        R3GANDiscriminator(32, 8, blocks=0)
    with pytest.raises(ValueError, match="nz must be at least 1; got nz=0"):
        R3GANGenerator(32, 8, 0)


# --- what the nets compute -------------------------------------------------------------------------------------------


def along(x: Tensor, matrix: Tensor) -> Tensor:
    """The matrix (out, in) applied along both directions of maps (N, C, in, in)."""
    return torch.einsum("oi,pj,ncij->ncop", matrix, matrix, x)


def halving(size: int) -> Tensor:
    """(size / 2, size): output i is (x[2i-1] + 3 x[2i] + 3 x[2i+1] + x[2i+2]) / 8, with zeros outside."""
    matrix = torch.zeros(size // 2, size, dtype=torch.float64)
    for i in range(size // 2):
        for j, tap in zip(range(2 * i - 1, 2 * i + 3), (1, 3, 3, 1), strict=True):
            if 0 <= j < size:
                matrix[i, j] = tap / 8
    return matrix


def doubling(size: int) -> Tensor:
    """(2 size, size): outputs 2i and 2i+1 are (3 x[i] + x[i-1]) / 4 and (3 x[i] + x[i+1]) / 4, with zeros outside."""
    matrix = torch.zeros(2 * size, size, dtype=torch.float64)
    for i in range(size):
        for row, neighbour in ((2 * i, i - 1), (2 * i + 1, i + 1)):
            matrix[row, i] = 3 / 4
            if 0 <= neighbour < size:
                matrix[row, neighbour] = 1 / 4
    return matrix


def block_by_sums(x: Tensor, block: Block) -> Tensor:
    def mixed(h: Tensor, conv: nn.Conv2d) -> Tensor:
        return torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], h)

    def leaky(h: Tensor, bias: Tensor) -> Tensor:
        h = h + bias[:, None, None]
        return torch.where(h > 0, h, 0.2 * h)

    h = leaky(mixed(x, block.conv1), block.conv1.bias)
    groups, (height, width) = block.conv2.groups, x.shape[2:]
    around = F.pad(h, (1, 1, 1, 1)).unflatten(1, (groups, -1))  # (N, groups, channels of one, H + 2, W + 2)
    kernels = block.conv2.weight.unflatten(0, (groups, -1))  # (groups, outputs of one, channels of one, 3, 3)
    h = sum(
        torch.einsum("goc,ngchw->ngohw", kernels[..., i, j], around[..., i : i + height, j : j + width])
        for i in range(3)
        for j in range(3)
    ).flatten(1, 2)
    return x + mixed(leaky(h, block.conv2.bias), block.conv3)


def test_filters() -> None:
    net = R3GANDiscriminator(32, 8).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(downsampled(x, net.taps), along(x, halving(6)), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(upsampled(x, net.taps), along(x, doubling(6)), rtol=1e-12, atol=1e-14)
    assert "taps" not in net.state_dict()


@torch.no_grad()
@pytest.mark.parametrize("resolution", [32, 64])
def test_discriminator_by_sums(resolution: int) -> None:
    D = drawn(R3GANDiscriminator(resolution, 6, blocks=2, cardinality=4))
    x = torch.randn(2, 3, resolution, resolution, dtype=torch.float64)
    blocks = [m for m in D.modules() if isinstance(m, Block)]
    narrow = [m for m in D.transitions if not isinstance(m, nn.Identity)]
    assert len(narrow) == (resolution == 64)
    h = torch.einsum("oi,nihw->nohw", D.from_rgb.weight[:, :, 0, 0], x)
    while True:
        for block in (blocks.pop(0), blocks.pop(0)):
            h = block_by_sums(h, block)
        if h.shape[2] == 4:
            break
        h = along(h, halving(h.shape[2]))
        if h.shape[1] == 3:  # half of the width
            h = torch.einsum("oi,nihw->nohw", narrow.pop().weight[:, :, 0, 0], h)
    assert not blocks
    features = torch.einsum("chw,nchw->nc", D.basis.weight[:, 0], h)
    torch.testing.assert_close(D(x), features @ D.linear.weight.T, rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("resolution", [32, 64])
def test_generator_by_sums(resolution: int) -> None:
    G = drawn(R3GANGenerator(resolution, 6, 5, blocks=2, cardinality=4))
    z = torch.randn(2, 5, dtype=torch.float64)
    blocks = [m for m in G.modules() if isinstance(m, Block)]
    narrow = [m for m in G.transitions if not isinstance(m, nn.Identity)]
    h = torch.einsum("chw,cz,nz->nchw", G.basis, G.linear.weight, z)
    while True:
        for block in (blocks.pop(0), blocks.pop(0)):
            h = block_by_sums(h, block)
        if h.shape[2] == resolution:
            break
        if h.shape[2] == 32:  # the last stage of 64 pixels
            h = torch.einsum("oi,nihw->nohw", narrow.pop().weight[:, :, 0, 0], h)
        h = along(h, doubling(h.shape[2]))
    assert not blocks
    assert not narrow
    images = torch.einsum("oi,nihw->nohw", G.to_rgb.weight[:, :, 0, 0], h)
    torch.testing.assert_close(G(z), images, rtol=1e-10, atol=1e-12)


# --- the start -------------------------------------------------------------------------------------------------------


def test_standard_deviations_of_the_start() -> None:
    """Eight blocks in all: gain sqrt(2 / 1.04) / 8^(1/4) within a block, and 1 elsewhere."""
    gain = math.sqrt(2 / 1.04) * 8**-0.25
    G, D = R3GANGenerator(32, 256), R3GANDiscriminator(32, 256)
    for block in (m for net in (G, D) for m in net.modules() if isinstance(m, Block)):
        assert block.conv1.weight.std().item() == pytest.approx(gain / math.sqrt(256), rel=0.02)
        assert block.conv2.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.02)
        assert not any(tensor.any() for tensor in (block.conv3.weight, block.conv1.bias, block.conv2.bias))
    for weight, fan_in in (
        *((G.linear.weight, 64), (G.basis, 1), (G.to_rgb.weight, 256)),
        *((D.from_rgb.weight, 3), (D.basis.weight, 16), (D.linear.weight, 256)),
    ):
        spread = 3 / math.sqrt(2 * weight.numel())
        assert weight.std().item() * math.sqrt(fan_in) == pytest.approx(1, rel=spread)
    narrow = R3GANGenerator(64, 256).transitions[-1].weight
    assert narrow.std().item() * math.sqrt(256) == pytest.approx(1, rel=0.02)


def test_generator_starts_linear_and_has_no_tanh() -> None:
    G = R3GANGenerator(32, 64)
    z = torch.randn(3, 64)
    torch.testing.assert_close(G(100 * z), 100 * G(z), rtol=1e-4, atol=1e-3)
    assert G(100 * z).abs().max() > 10


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "compile"),
    [(FIRST, False), (SECOND, False), pytest.param(SECOND, True, marks=pytest.mark.slow)],
    ids=["first", "second", "second-compiled"],
)
def test_step(config: DATConfig, compile: bool) -> None:
    D = drawn(R3GANDiscriminator(32, 6, blocks=1, cardinality=4))
    x = torch.rand(6, 3, 32, 32, dtype=torch.float64) * 2 - 1
    assert_step_matches(D, x[:3], x[3:] * 0.7, config, "gan", tolerance=1e-11, compile=compile)


def test_gradients_by_finite_differences() -> None:
    """Of images and of z, in first and second order."""
    G = drawn(R3GANGenerator(32, 2, 3, blocks=1, cardinality=2))
    D = drawn(R3GANDiscriminator(32, 2, blocks=1, cardinality=2))
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: D(G(z)), z)
    assert torch.autograd.gradgradcheck(lambda z: D(G(z)), z)
