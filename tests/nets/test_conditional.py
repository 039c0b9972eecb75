"""Conditional SNGAN: the effect of labels, and the step with them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fastdat
import fastdat.reference
from fastdat.nets import ConditionalSNGANDiscriminator, ConditionalSNGANGenerator, SNGANGenerator
from fastdat.nets.conditional import ConditionalBatchNorm2d


def test_conditional_batch_norm_equals_its_description() -> None:
    norm = ConditionalBatchNorm2d(3, classes=5).double()
    nn.init.normal_(norm.gain.weight)
    nn.init.normal_(norm.shift.weight)
    x, y = torch.randn(4, 3, 6, 6, dtype=torch.float64), torch.tensor([0, 4, 2, 4])
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = norm.gain.weight[y][:, :, None, None] * (x - mean) / (var + norm.eps).sqrt()
    torch.testing.assert_close(norm(x, y), expected + norm.shift.weight[y][:, :, None, None])


def test_classes_are_equal_before_training() -> None:
    G = ConditionalSNGANGenerator(32, 10, ngf=4, nz=6).eval()
    z = torch.randn(1, 6)
    assert torch.equal(G(z, torch.tensor([0])), G(z, torch.tensor([9])))


def test_parameter_counts() -> None:
    with torch.device("meta"):
        plain = sum(p.numel() for p in SNGANGenerator(32).parameters())
        sizes = sum(p.numel() for p in ConditionalSNGANGenerator(32, 10).parameters())
    # Six norms of 256 channels: gain and bias of each class instead of one.
    assert sizes == plain + 6 * 2 * 256 * 9
    assert sum(p.numel() for p in ConditionalSNGANDiscriminator(32, 10).parameters()) == 1_053_825 + 10 * 128


def test_the_projection() -> None:
    D = ConditionalSNGANDiscriminator(32, 10, ndf=4).eval()
    x = torch.rand(3, 3, 32, 32)
    features = D.features(x)
    y = torch.tensor([1, 7, 7])
    expected = (
        D.linear(features)
        + torch.stack([f @ D.embedding.weight[k] for f, k in zip(features, y, strict=True)])[:, None]
    )
    torch.testing.assert_close(D(x, y), expected)


@pytest.mark.parametrize("second_order", [False, True])
def test_the_step_with_labels_equals_the_reference(second_order: bool) -> None:
    D = ConditionalSNGANDiscriminator(32, 10, ndf=4).double()
    other = copy.deepcopy(D)
    xr, xf = (torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1 for _ in range(2))
    labels = {"args_real": (torch.tensor([1, 2, 3, 1]),), "args_fake": (torch.tensor([0, 2, 9, 1]),)}
    config = fastdat.DATConfig(second_order=second_order)
    fastdat.dat_step(D, xr, xf, config=config, compile=False, **labels).backward()
    fastdat.reference.dat_step(other, xr, xf, config=config, **labels).backward()
    for a, b in zip(D.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("net", [ConditionalSNGANGenerator, ConditionalSNGANDiscriminator])
def test_no_classes_are_refused(net: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="classes must be at least 1; got classes=0"):
        net(32, 0)
