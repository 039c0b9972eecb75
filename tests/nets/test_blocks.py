"""The blocks compared with a literal transcription of their description."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fastdat.nets.blocks import DBlock, FirstDBlock, GBlock, SumPool, conv3
from fastdat.nets.init import normalised_xavier, xavier


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gblock_equals_its_description() -> None:
    block = GBlock(4, 6).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)

    def up(t: torch.Tensor) -> torch.Tensor:
        return F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=False)

    h = block.conv1(up(torch.relu(block.norm1(x))))
    h = block.conv2(torch.relu(block.norm2(h)))
    close(block(x), h + block.shortcut(up(x)))
    assert block(x).shape == (3, 6, 10, 10)


def test_first_dblock_equals_its_description() -> None:
    block = FirstDBlock(3, 6).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    h = F.avg_pool2d(block.conv2(torch.relu(block.conv1(x))), 2)
    close(block(x), h + block.shortcut(F.avg_pool2d(x, 2)))


@pytest.mark.parametrize(("out", "down"), [(4, False), (6, False), (4, True), (6, True)])
def test_dblock_shortcut_sees_the_rectified_input(out: int, down: bool) -> None:
    # As in the released baseline: the residual is evaluated first, and its in-place ReLU changes x.
    block = DBlock(4, out, down=down).double().eval()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    inplace = x.clone()
    h = block.conv2(torch.relu(block.conv1(F.relu(inplace, inplace=True))))
    shortcut = block.shortcut(inplace)
    expected = F.avg_pool2d(h, 2) + F.avg_pool2d(shortcut, 2) if down else h + shortcut
    before = x.clone()
    close(block(x), expected)
    assert torch.equal(x, before), "the block must not change its input"


def test_dblock_shortcut_is_the_identity_only_when_nothing_changes() -> None:
    assert isinstance(DBlock(4, 4, down=False).shortcut, torch.nn.Identity)
    for block in (DBlock(4, 4, down=True), DBlock(4, 6, down=False)):
        assert block.shortcut.weight.shape[2:] == (1, 1)


def test_dblock_hidden_width_is_the_input_width() -> None:
    block = DBlock(4, 6, down=True)
    assert block.conv1.weight.shape == (4, 4, 3, 3)
    assert block.conv2.weight.shape == (6, 4, 3, 3)


def test_sum_pool() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(SumPool()(x), x.clamp(min=0).sum((2, 3)))


def test_xavier_bounds() -> None:
    bound = math.sqrt(6.0 / ((8 + 8) * 9))  # fan_in = fan_out = 8 * 9
    weight = xavier(conv3(8, 8)).weight
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.9 * bound
    normalised = normalised_xavier(conv3(8, 8)).parametrizations.weight.original
    assert 0.9 * bound < normalised.abs().max() <= bound
    for layer in (GBlock(8, 8).conv1, GBlock(8, 8).conv2):
        assert 0.9 * math.sqrt(2) * bound < layer.weight.abs().max() <= math.sqrt(2) * bound
    for block in (FirstDBlock(8, 8), DBlock(8, 8, down=True)):
        for layer in (block.conv1, block.conv2):
            drawn = layer.parametrizations.weight.original
            assert 0.9 * math.sqrt(2) * bound < drawn.abs().max() <= math.sqrt(2) * bound
        bound_1 = math.sqrt(6.0 / (8 + 8))  # of the shortcut's kernels, which have one weight
        assert 0.8 * bound_1 < block.shortcut.parametrizations.weight.original.abs().max() <= bound_1
    assert 0.8 * bound_1 < GBlock(8, 8).shortcut.weight.abs().max() <= bound_1


def test_spectral_norm_is_estimated_on_the_drawn_weight() -> None:
    layer = normalised_xavier(conv3(8, 8), gain=math.sqrt(2))
    original = layer.parametrizations.weight.original.detach()
    norm = torch.linalg.matrix_norm(original.flatten(1), 2)
    torch.testing.assert_close(
        layer.eval().weight.flatten(1) * norm, original.flatten(1), rtol=0.02, atol=1e-4
    )
    plain = spectral_norm(conv3(8, 8))
    assert set(layer.state_dict()) == set(plain.state_dict()), (
        "torch's own names, so state_dicts are interchangeable"
    )
