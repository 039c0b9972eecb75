"""Training with ``dat_generator``: G's step on attacked fakes, with the reals of the iteration, exact when resumed."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.data import ImageSet, TrainSampler
from fastdat.nets.augmentation import augmented
from fastdat.training import ConfigError, TrainConfig, Trainer
from fastdat.training.steps import Reals, Steps
from tests.training.runs import (
    assert_same,
    latest,
    read_log,
    read_stats,
    results,
    resumable,
    silent,
    tiny,
    train_until,
    trainer_of,
    without_times,
)
from tests.training.test_augmented_training import NZ, WHOLE, N, Small, SmallG, draws, steps_of
from tests.training.test_steps import Auxiliary as Normalised

ATTACK = DATConfig(eps=4.0, eps_batch=4, real=False, fake=False)  # of G's step only


def moved(before: nn.Module, after: nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize("loss", ["gan", "rpgan"])
@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("augment", ["none", "diffaug"])
def test_the_step_of_g_is_that_of_the_reference(augment: str, classes: int, loss: str) -> None:
    """With G's labels and augmentations on the fakes, and those of the reals on the reals."""
    G, D = SmallG(), Small(classes)
    xr, z = torch.rand(N, 3, 16, 16) * 2 - 1, torch.randn(N, NZ)
    labels = [(torch.randint(classes, (N,)),) if classes else () for _ in range(2)]
    of_real, of_g = (draws() if augment != "none" else () for _ in range(2))
    steps = steps_of(G, D, dat=ATTACK, augment=augment, loss=loss, dat_generator="second_order")
    value = steps.generator(z, labels[1], of_g, Reals(xr, labels[0], of_real))
    found = [p.grad.clone() for p in G.parameters()]

    class Whole(nn.Module):
        """D with the augmentation in front."""

        def __init__(self) -> None:
            super().__init__()
            self.D = D

        def forward(self, x: Tensor, draws: Tensor, *labels: Tensor) -> Tensor:
            return self.D(augmented(x, draws, WHOLE) if augment != "none" else x, *labels)

    none = (torch.zeros(N),)
    G.zero_grad()
    expected = fastdat.reference.generator_step(
        Whole(),
        G(z),
        xr,
        ATTACK,
        loss,
        wiring="second_order",
        args_real=(*(of_real or none), *labels[0]),
        args_fake=(*(of_g or none), *labels[1]),
    )
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    for mine, p in zip(found, G.parameters(), strict=True):
        assert p.grad.norm() > 0
        torch.testing.assert_close(mine, p.grad)
    assert all(p.grad is None for p in D.parameters())
    assert all(p.requires_grad for p in D.parameters())


class Auxiliary(Small):
    auxiliary_weight_d, auxiliary_weight_g = 0.5, 0.2

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        return self.body(x.flip(3)).square().mean()


@pytest.mark.parametrize("augment", ["none", "diffaug"])
def test_the_auxiliary_loss_is_that_of_the_clean_fakes(augment: str) -> None:
    """A cut attack leaves its gradient alone."""
    G, D = SmallG(), Auxiliary()
    z, xr = torch.randn(N, NZ), torch.rand(N, 3, 16, 16)
    of_g = draws() if augment != "none" else ()
    steps = steps_of(G, D, dat=ATTACK, augment=augment, dat_generator="cut")
    steps.generator(z, (), of_g, Reals(xr, (), of_g))
    found = [p.grad.clone() for p in G.parameters()]
    G.zero_grad()
    (0.2 * D.auxiliary_loss(G(z))).backward()
    for mine, p in zip(found, G.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad)


def test_it_needs_reals() -> None:
    steps = steps_of(SmallG(), Small(), augment="none", dat_generator="pass")
    with pytest.raises(ValueError, match="dat_generator=pass has its targets from reals"):
        steps.generator(torch.randn(N, NZ))


def test_the_reals_are_those_of_the_last_d_step(
    few_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Tensor]] = {"D": [], "G": []}
    of_d, of_g = Steps.discriminator, Steps.generator

    def discriminator(self: Steps, xr: Tensor, *args: Any, **named: Any) -> Any:
        seen["D"].append(xr)
        return of_d(self, xr, *args, **named)

    def generator(self: Steps, z: Tensor, labels: Any, draws: Any, reals: Reals) -> Any:
        seen["G"].append(reals.images)
        return of_g(self, z, labels, draws, reals)

    monkeypatch.setattr(Steps, "discriminator", discriminator)
    monkeypatch.setattr(Steps, "generator", generator)
    trainer_of(tiny("dcgan-cifar10", dat_generator="pass", n_dis=2, steps=2), few_images, tmp_path).train()
    assert len(seen["D"]) == 4
    assert torch.equal(torch.stack(seen["G"]), torch.stack(seen["D"][1::2]))


@pytest.mark.parametrize("wiring", ["pass", "second_order", "cut"])
def test_cut_leaves_g_as_it_was(wiring: str, few_images: ImageSet, tmp_path: Path) -> None:
    """Table IV's "generator only": with a cut graph G keeps its initial weights, and D learns."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    before = copy.deepcopy((G, D))
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (G, D)]
    changes = {"nz": 8, "batch_size": 4, "steps": 2, "compile": False, "logger": "none", "eval.every": None}
    config = TrainConfig().replace(changes | {"dat_generator": wiring, "dat.real": False, "dat.fake": False})
    Trainer(G, D, *optimizers, TrainSampler(few_images, 4), config, tmp_path, display=silent()).train()
    assert moved(before[1], D)
    assert moved(before[0], G) == (wiring != "cut")


@pytest.mark.slow
def test_compiled_is_one_graph_more(
    few_images: ImageSet, tmp_path: Path, compile_counters: dict[str, Counter[str]]
) -> None:
    """G's step is then two graphs, G's and the loss with its gradient; with the auxiliary loss inside, and a fused
    spectral norm, which must not advance u a second time."""
    stats, norms = [], []
    for compile in (False, True):
        torch.manual_seed(0)
        G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
        D = fastdat.fuse_spectral_norm(Normalised())
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.02) for net in (G, D)]
        config = tiny(log_every=1, compile=compile, dat_generator="pass")
        sampler = TrainSampler(few_images, 4)
        Trainer(G, D, *optimizers, sampler, config, tmp_path / str(compile), display=silent()).train()
        stats.append(without_times(read_stats(tmp_path / str(compile))))
        norms.append(dict(D.named_buffers()))
    for a, b in zip(*stats, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(norms[1], norms[0], rtol=1e-3, atol=1e-4)
    assert not compile_counters["graph_break"]
    assert compile_counters["stats"]["unique_graphs"] == 4


def test_u_advances_once() -> None:
    """As in G's usual step, where a fused D shares one normalisation with the auxiliary loss."""
    z, xr = torch.randn(N, 8), torch.rand(N, 3, 32, 32)
    moved_to = []
    for wiring in ("none", "pass"):
        torch.manual_seed(0)
        G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
        D = fastdat.fuse_spectral_norm(Normalised())
        steps_of(G, D, augment="none", dat_generator=wiring).generator(z, reals=Reals(xr))
        moved_to.append(dict(D.named_buffers()))
    torch.testing.assert_close(*moved_to)


@pytest.mark.slow
def test_a_run_is_resumed_exactly(few_images: ImageSet, tmp_path: Path) -> None:
    """SSGAN: spectral norm, whose u moves in G's step, too, and an auxiliary loss."""
    config = resumable("ssgan-dat-cifar10", dat_generator="pass")
    trainer_of(config, few_images, tmp_path / "straight").train()
    train_until(trainer_of(config, few_images, tmp_path / "stopped"), 11)
    torch.manual_seed(99)
    trainer_of(config, few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))
    assert "resumed after 4 steps" in read_log(tmp_path / "stopped")
    other = config.replace({"dat_generator": "none"})
    with pytest.raises(ConfigError, match="dat_generator pass then, none now"):
        trainer_of(other, few_images, tmp_path / "stopped")
    trainer_of(other, few_images, tmp_path / "none").train()
    states = [latest(tmp_path / name)["netG"] for name in ("none", "straight")]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0]), "it has no effect"


def test_it_is_recorded() -> None:
    config = tiny(dat_generator="second_order")
    assert config.to_dict()["dat_generator"] == "second_order"
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig().dat_generator == "none"


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(
        ConfigError, match="dat_generator=pass puts DAT into G's step, which asgan has no part in"
    ):
        tiny(attack={"name": "asgan"}, dat={}, dat_generator="pass")
    with pytest.raises(ConfigError, match="dat_generator must be"):
        tiny(dat_generator="all")
    with pytest.raises(ConfigError, match=r"the loss rpgan compares pairs: set dat\.seed=logits"):
        tiny(loss="rpgan", dat_generator="pass", **{"dat.seed": "eq10", "dat.real": False, "dat.fake": False})
