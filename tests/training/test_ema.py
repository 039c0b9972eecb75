"""The running average of G."""

from __future__ import annotations

import torch

from fastdat.training.ema import EMA


def test_weights_are_averaged_and_statistics_copied() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(net, 0.75)
    old = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.add_(1)
    net(torch.randn(4, 2))
    ema.update()
    torch.testing.assert_close(ema.net[0].weight, old + 0.25)
    assert torch.equal(ema.net[1].running_mean, net[1].running_mean)
    assert not any(p.requires_grad for p in ema.net.parameters())
