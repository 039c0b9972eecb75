"""The running average of G."""

from __future__ import annotations

import pytest
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


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
def test_nets_that_keep_what_they_have_computed() -> None:
    """torch's older reparametrizations hold the weight of the last call, which autograd does not let be copied."""
    layers = (
        torch.nn.utils.weight_norm(torch.nn.Linear(2, 3)),
        torch.nn.utils.spectral_norm(torch.nn.Linear(3, 2)),
    )
    net = torch.nn.Sequential(*layers)
    x = torch.randn(4, 2)
    net(x)
    ema = EMA(net, 0.75)
    torch.testing.assert_close(ema.net.eval()(x), net.eval()(x))
    with torch.no_grad():
        net[0].weight_g.add_(1)
    ema.update()
    torch.testing.assert_close(ema.net[0].weight_g, net[0].weight_g - 0.75)
    assert not torch.equal(ema.net(x), net(x))
