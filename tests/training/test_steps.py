"""The updates of D and G, and the modes of their nets."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fastdat
from fastdat import DATConfig
from fastdat.data import ImageSet, TrainSampler
from fastdat.info import DATInfo
from fastdat.training import Trainer
from fastdat.training.steps import measurements
from fastdat.util.net_modes import evaluating, frozen
from tests.training.runs import read_stats, silent, tiny, without_times


def test_frozen_restores_requires_grad() -> None:
    net = torch.nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    with contextlib.suppress(RuntimeError), frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        raise RuntimeError
    assert (net.weight.requires_grad, net.bias.requires_grad) == (True, False)


def test_evaluating_restores_the_mode_of_each_module() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    net[1].eval()
    with contextlib.suppress(RuntimeError), evaluating(net):
        assert not any(module.training for module in net.modules())
        raise RuntimeError
    assert [module.training for module in net.modules()] == [True, True, False]


class Auxiliary(nn.Module):
    """A small normalised D whose auxiliary loss uses a head of its own."""

    auxiliary_weight_d = 0.5
    auxiliary_weight_g = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(3 * 32 * 32, 8)), nn.ReLU())
        self.head, self.other = (spectral_norm(nn.Linear(8, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        return (self.other(self.body(x)) - 1).square().mean()


@pytest.mark.parametrize(("real", "fake"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_is_recorded_of_a_step(real: bool, fake: bool) -> None:
    """Of the attack, what concerns the sides that are attacked."""
    scalars = ("delta_rms", "grad_norm", "clipped")
    of_sides = {f"{name}_{side}": torch.rand(()) for name in scalars for side in ("real", "fake")}
    logits = {f"{name}logits_{side}": torch.randn(5) for name in ("", "clean_") for side in ("real", "fake")}
    images = torch.zeros(5, 2)
    info = DATInfo(
        **of_sides,
        **logits,
        xr_adv=images,
        xf_adv=images,
        penalty_fraction=torch.rand(()),
        terms={"r1": torch.rand(()), "r1.grad_norm": torch.rand(())},
    )
    expected = {name: value.mean() for name, value in logits.items() if real or fake or "clean" not in name}
    if real or fake:
        expected["penalty_fraction"] = info.penalty_fraction
    expected |= {k: v for k, v in of_sides.items() if (real if k.endswith("_real") else fake)}
    expected |= {"term_r1": info.terms["r1"], "term_r1_grad_norm": info.terms["r1.grad_norm"]}
    assert measurements(info, DATConfig(real=real, fake=fake)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["none", "diffaug"])
def test_an_auxiliary_loss_is_compiled_too(
    augment: str, few_images: ImageSet, tmp_path: Path, compile_counters: dict[str, Counter[str]]
) -> None:
    """It is in the one graph of each step, as the augmentation is, and G's two calls of D share one spectral
    normalisation."""
    stats = []
    for compile in (False, True):
        torch.manual_seed(0)
        G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
        D = fastdat.fuse_spectral_norm(Auxiliary())
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.02) for net in (G, D)]
        before = D.other.weight.detach().clone()
        config = tiny(log_every=1, compile=compile, augment=augment)
        sampler = TrainSampler(few_images, 4)
        Trainer(G, D, *optimizers, sampler, config, tmp_path / str(compile), display=silent()).train()
        assert not torch.equal(before, D.other.weight), "the auxiliary loss trains its head"
        stats.append(without_times(read_stats(tmp_path / str(compile))))
    for a, b in zip(*stats, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    assert not compile_counters["graph_break"]
    assert compile_counters["stats"]["unique_graphs"] == 3
