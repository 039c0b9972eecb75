"""Which nets may take several batches in one pass, and what the others are told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fastdat.nets import (
    ConditionalSNGANGenerator,
    DCGANGenerator,
    MLPGenerator,
    R3GANGenerator,
    Table3Generator,
)
from fastdat.nets.grouped_batch import NotGroupedError
from fastdat.nets.grouped_probe import check_in_groups

NZ = 5


class Joined(nn.Module):
    """A functional step ``step(net, h)`` between two layers."""

    def __init__(self, step: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(NZ, 4), nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.zeros(4))
        self.step = step
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.second(self.step(self, self.first(z)))
        return out


def _deviation(net: Joined, h: Tensor) -> Tensor:
    return h + h.std(0).mean()  # minibatch standard deviation


def _hidden_deviation(net: Joined, h: Tensor) -> Tensor:
    return h + net.gain * h.std(0)  # the gain is zero before training


def _functional_norm(net: Joined, h: Tensor) -> Tensor:
    return F.batch_norm(h, None, None, training=True)


def _noise(net: Joined, h: Tensor) -> Tensor:
    return h + torch.randn_like(h)


def _running(net: Joined, h: Tensor) -> Tensor:
    net.mean.lerp_(h.mean(0), 0.1)
    return h


def _rolled(net: Joined, h: Tensor) -> Tensor:
    return h + h.roll(1, 0)  # each sample with the one before it


def _slight_deviation(net: Joined, h: Tensor) -> Tensor:
    return h + 1e-6 * h.std(0)  # less than what float32 rounds away


def _in_float32(net: Joined, h: Tensor) -> Tensor:
    return F.linear(h.float(), torch.ones(4, 4))  # the next layer of a float64 copy cannot take it


class MinibatchDeviation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.std(0)


class ByNumbers(nn.Module):
    """Takes tensors of other sizes than the batch's, even one without a dimension."""

    def forward(self, x: Tensor, factor: Tensor, weights: Tensor) -> Tensor:
        return x * factor + weights.sum()


class WithNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = ByNumbers()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, torch.tensor(2.0), weights=torch.arange(7.0))
        return out


class OwnForward(nn.BatchNorm1d):
    """Calls the function and not ``super().forward``."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
        )


class Counting(nn.BatchNorm1d):
    """A subclass with more in its forward, which calls ``super().forward``."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def net_with(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(NZ, 4), nn.BatchNorm1d(4), *layers, nn.Linear(4, 3))


def without_momentum() -> nn.Module:
    return net_with(nn.BatchNorm1d(4, momentum=None))


@pytest.mark.parametrize(
    "net",
    [
        DCGANGenerator(28, ngf=3, nz=NZ),
        Table3Generator(ngf=3, nz=NZ),
        R3GANGenerator(32, ngf=16, nz=NZ),
        MLPGenerator(NZ, hidden=6, layers=2),
        net_with(nn.LayerNorm(4), Counting(4), nn.Dropout(0.0)),
        net_with(nn.BatchNorm1d(4, track_running_stats=False)),
        net_with(nn.Dropout()).eval(),
        net_with(spectral_norm(nn.Linear(4, 4))).eval(),
        net_with(WithNumbers()),
        Joined(_in_float32),
        DCGANGenerator(28, ngf=3, nz=NZ).bfloat16(),
    ],
    ids=lambda net: type(net).__name__,
)
def test_allowed(net: nn.Module) -> None:
    check_in_groups(net, torch.randn(6, NZ))


def test_allowed_with_labels() -> None:
    net = ConditionalSNGANGenerator(32, 7, ngf=4, nz=NZ)
    check_in_groups(net, torch.randn(6, NZ), torch.tensor([0, 6, 2, 3, 3, 1]))


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (net_with(nn.Dropout()), "Dropout at '2' of Sequential draws random numbers"),
        (Joined(_noise), "the net Joined itself draws random numbers"),
        (
            net_with(spectral_norm(nn.Linear(4, 4))),
            r"buffer '2\..*\._u' of Sequential moves in each forward pass",
        ),
        (Joined(_running), "buffer 'mean' of Joined moves"),
        (
            net_with(nn.BatchNorm1d(4), MinibatchDeviation()),
            "MinibatchDeviation at '3' of Sequential joins",
        ),
        (Joined(_deviation), "the net Joined itself joins the samples"),
        (Joined(_hidden_deviation), "the net Joined itself joins the samples"),
        (Joined(_slight_deviation), "the net Joined itself joins the samples"),
        (Joined(_functional_norm), "the net Joined itself joins the samples"),
        (Joined(_rolled), "the net Joined itself joins the samples"),
        (net_with(OwnForward(4)), "OwnForward at '2' of Sequential has a forward of its own"),
        (without_momentum(), "BatchNorm1d at '2' of Sequential has momentum=None"),
        (nn.Linear(NZ + 1, 4), "a copy of it fails on 6 samples as two batches: RuntimeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refused(net: nn.Module, reason: str) -> None:
    with pytest.raises(NotGroupedError, match=reason):
        check_in_groups(net, torch.randn(6, NZ))


def test_own_state_of_a_subclass_ends_elsewhere() -> None:
    class Sum(nn.BatchNorm1d):
        """Adds to its running mean once a pass; its outputs are right."""

        def forward(self, input: Tensor) -> Tensor:
            out: Tensor = super().forward(input)
            assert self.running_mean is not None
            self.running_mean.add_(1.0)
            return out

    with pytest.raises(NotGroupedError, match=r"buffer '2.running_mean' of Sequential ends elsewhere"):
        check_in_groups(net_with(Sum(4)), torch.randn(6, NZ))


@pytest.mark.parametrize("net", [net_with(nn.BatchNorm1d(4)), net_with(nn.Dropout())])
def test_nothing_is_left_changed(net: nn.Module) -> None:
    state, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    numbers = torch.get_rng_state()
    z = torch.randn(6, NZ, generator=torch.Generator().manual_seed(1))
    try:
        check_in_groups(net, z)
    except NotGroupedError:
        assert any(isinstance(module, nn.Dropout) for module in net.modules())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])


def test_a_net_is_tried_without_the_callers_autocast() -> None:
    seen = []

    def step(net: Joined, h: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return h

    with torch.autocast("cpu", torch.bfloat16):
        check_in_groups(Joined(step), torch.randn(6, NZ))
    assert seen == [False] * 3


@pytest.mark.parametrize("shapes", [(), ((5, NZ),), ((2, NZ),), ((6, NZ), (4,))])
def test_example_inputs_are_two_batches(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="example inputs must have the same even number of rows, at least 4"):
        check_in_groups(nn.Linear(NZ, 2), *map(torch.zeros, shapes))
