"""Training with ``augment``: both sides in both steps, exact when resumed, and nothing changes without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.data import ImageSet, TrainSampler
from fastdat.nets.augmentation import DRAWS, augmented
from fastdat.training import ConfigError, TrainConfig, Trainer, build_trainer, load_data
from fastdat.training.steps import Steps
from tests.training.runs import (
    assert_same,
    latest,
    read_stats,
    results,
    resumable,
    silent,
    tiny,
    train_until,
    trainer_of,
)

N, NZ = 4, 8
WHOLE = ("color", "translation", "cutout")
PLAIN = DATConfig(real=False, fake=False)


class Small(nn.Module):
    """A conditional or unconditional D that is no function of an image's symmetries."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 12 * 12, 1))
        self.embedding = nn.Embedding(classes, 1) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(x)
        return (
            logits if self.embedding is None else logits + self.embedding(labels) * x.mean((1, 2, 3))[:, None]
        )


class SmallG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NZ, 3 * 16 * 16)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.tanh(self.linear(z)).unflatten(1, (3, 16, 16))


def steps_of(G: nn.Module, D: nn.Module, **changes: Any) -> Steps:
    settings = {"augment": "diffaug", "loss": "gan", "compile": False, "dat": PLAIN} | changes
    optimizers = [torch.optim.SGD(net.parameters(), 0.0) for net in (G, D)]
    return Steps(G, D, *optimizers, TrainConfig(**settings))


def draws() -> tuple[Tensor]:
    return (torch.rand(N, DRAWS),)


@pytest.mark.parametrize("classes", [0, 5])
def test_both_steps_see_both_sides_augmented(classes: int) -> None:
    """The losses and gradients of both steps are those of pictures that were augmented by hand."""
    G, D = SmallG(), Small(classes)
    xr, z = torch.rand(N, 3, 16, 16) * 2 - 1, torch.randn(N, NZ)
    labels = [(torch.randint(classes, (N,)),) if classes else () for _ in range(2)]
    of_real, of_fake, of_g = draws(), draws(), draws()
    steps = steps_of(G, D)

    def T(x: Tensor, draws: tuple[Tensor]) -> Tensor:
        return augmented(x, *draws, WHOLE)

    loss, _ = steps.discriminator(xr, G(z).detach(), *labels, of_real, of_fake)
    found = [p.grad for p in D.parameters()]
    softplus = nn.functional.softplus
    real, fake = D(T(xr, of_real), *labels[0]), D(T(G(z).detach(), of_fake), *labels[1])
    expected = (softplus(-real) + softplus(fake)).mean()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(found, list(torch.autograd.grad(expected, list(D.parameters()))))

    loss = steps.generator(z, labels[1], of_g)
    found = [p.grad for p in G.parameters()]
    expected = softplus(-D(T(G(z), of_g), *labels[1])).mean()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(found, list(torch.autograd.grad(expected, list(G.parameters()))))


def test_a_dat_step_is_the_references(few_images: ImageSet) -> None:
    """Of D behind the augmentation: the attack moves the pictures, and D sees the moved ones augmented."""
    G, D, config = SmallG(), Small(), DATConfig(eps=50.0)
    xr, z = torch.rand(N, 3, 16, 16) * 2 - 1, torch.randn(N, NZ)
    of_real, of_fake = draws(), draws()
    loss, info = steps_of(G, D, dat=config).discriminator(xr, G(z).detach(), (), (), of_real, of_fake)
    behind = fastdat.nets.Augmented(D)
    expected, known = fastdat.reference.dat_step(
        behind, xr, G(z).detach(), config, "gan", with_info=True, args_real=of_real, args_fake=of_fake
    )
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(info.xr_adv, known.xr_adv)
    assert (info.xr_adv - xr).abs().max() > 1e-3


@pytest.mark.parametrize("microbatch", [1, 3])
def test_a_microbatch_changes_nothing(microbatch: int) -> None:
    xr, z, of_real, of_fake = torch.rand(N, 3, 16, 16) * 2 - 1, torch.randn(N, NZ), draws(), draws()
    G, D, config = SmallG(), Small(), DATConfig(eps=50.0)
    found = []
    for size in (None, microbatch):
        loss, _ = steps_of(G, D, dat=config, microbatch=size).discriminator(
            xr, G(z).detach(), (), (), of_real, of_fake
        )
        found.append([loss, *(p.grad for p in D.parameters())])
    torch.testing.assert_close(*found)


def test_auxiliary_losses_see_the_images_themselves() -> None:
    """Of the reals in D's step, of the fakes in G's."""

    class With(Small):
        auxiliary_weight_d, auxiliary_weight_g = 0.5, 0.2

        def auxiliary_loss(self, x: Tensor) -> Tensor:
            return x[:, :, 3:9].square().mean()

    G = SmallG()
    xr, z, given = torch.rand(N, 3, 16, 16) * 2 - 1, torch.randn(N, NZ), [draws(), draws()]
    torch.manual_seed(1)
    D = With()
    torch.manual_seed(1)
    plain = Small()
    losses = [steps_of(G, net).discriminator(xr, G(z).detach(), (), (), *given)[0] for net in (D, plain)]
    torch.testing.assert_close(losses[0] - losses[1], 0.5 * D.auxiliary_loss(xr))
    losses = [steps_of(G, net).generator(z, (), given[0]) for net in (D, plain)]
    torch.testing.assert_close(losses[0] - losses[1], 0.2 * D.auxiliary_loss(G(z)).detach())


@pytest.mark.parametrize("name", ["sngan-dat-cifar10", "csngan-dat-cifar10"])
def test_random_numbers_are_a_function_of_the_step(name: str, few_images: ImageSet, tmp_path: Path) -> None:
    """Others for each step and side, none without augmentation, and all else stays as it was without it."""
    plain, made = (
        trainer_of(tiny(name, augment=augment), few_images, tmp_path / augment).iteration
        for augment in ("none", "color")
    )
    first, again, later = ([*made.fill(step).discriminator] for step in (3, 3, 4))
    latents = made.fill(3).latents, plain.fill(3).latents
    assert_same(*([z, *labels] for z, labels in latents))
    found = [draws for d in (*first, *later) for draws in (*d.draws_real, *d.draws_fake)]
    found += [*made.fill(3).generator.draws, *made.fill(4).generator.draws]
    assert len(found) == 2 * 4 + 2
    assert all(d.shape == (4, DRAWS) and d.min() >= 0 and d.max() < 1 for d in found)
    assert len({d.numpy().tobytes() for d in found}) == len(found)
    assert_same([*first[0].draws_real, *first[1].draws_fake], [*again[0].draws_real, *again[1].draws_fake])
    for ours, theirs in zip(first, plain.fill(3).discriminator, strict=True):
        assert (theirs.draws_real, theirs.draws_fake) == ((), ())
        assert_same([ours.reals], [theirs.reals])
    assert plain.fill(3).generator.draws == ()


@pytest.mark.slow
def test_resuming_is_exact_and_the_augmentation_is_in_use(few_images: ImageSet, tmp_path: Path) -> None:
    config = resumable(augment="diffaug", steps=4)
    trainer_of(config, few_images, tmp_path / "whole").train()
    first = trainer_of(config, few_images, tmp_path / "parts")
    train_until(first, 5)
    second = trainer_of(config, few_images, tmp_path / "parts")
    assert second.done == 2
    second.train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))
    plain = trainer_of(resumable(steps=4), few_images, tmp_path / "plain")
    plain.train()
    assert list(latest(tmp_path / "plain")["netD"]) == list(latest(tmp_path / "whole")["netD"])
    assert results(tmp_path / "plain")["stats"] != results(tmp_path / "whole")["stats"]
    with pytest.raises(ConfigError, match="augment diffaug then, none now"):
        trainer_of(resumable(steps=4), few_images, tmp_path / "whole")


@pytest.mark.parametrize("name", ["dcgan-dat-mnist", "ssgan-dat-cifar10", "csngan-dat-cifar10"])
def test_two_steps(name: str, few_images: ImageSet, tmp_path: Path) -> None:
    """Grey images, an auxiliary loss, labels; with bf16 and channels_last, an averaged G, and a policy."""
    config = tiny(name, steps=2, log_every=1, augment="cutout,color", precision="bf16", channels_last=True)
    data = few_images
    if config.dataset == "mnist":
        grey = few_images.images[:, :1, 2:30, 2:30].contiguous()
        data = ImageSet("mnist train", grey, few_images.labels, few_images.classes)
    trainer_of(config, data, tmp_path / "run").train()
    stats = read_stats(tmp_path / "run")
    assert len(stats) == 2
    assert all(torch.tensor(list(line.values())).isfinite().all() for line in stats)


def test_points_and_distributed_nets_are_refused(few_images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="augment would change images, and gaussians has points"):
        build_trainer(tiny("mlp-dat-gaussians", augment="color"), None, tmp_path / "run")
    with pytest.raises(ConfigError, match="flip would change images, and gaussians has points"):
        load_data(tiny("mlp-dat-gaussians", flip=True))
    G, D = nn.Linear(8, 2), nn.Linear(2, 1)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.02) for net in (G, D)]
    points = [torch.rand(4, 2) * 2 - 1] * 3
    settings = {"nz": 8, "batch_size": 4, "compile": False, "augment": "diffaug", "logger": "none"}
    trainer = Trainer(G, D, *optimizers, points, outdir=tmp_path / "own", display=silent(), **settings)
    with pytest.raises(
        ConfigError, match=r"augment=diffaug changes images .*have the shape \(4, 2\): set augment"
    ):
        trainer.train()
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(
        ConfigError, match="augment=diffaug: the augmentation cannot be put around Distributed"
    ):
        steps_of(SmallG(), wrapped)


@pytest.mark.parametrize("wrong", ["colour", "color,color", "", "color;cutout"])
def test_unknown_policies_are_refused(wrong: str) -> None:
    with pytest.raises(
        ConfigError, match='augment must be text: "none", "diffaug", or some of "color,translation'
    ):
        TrainConfig(augment=wrong)
    assert TrainConfig(augment="cutout,color").augment == "cutout,color"


def test_flips_of_a_loader_are_refused(few_images: ImageSet, tmp_path: Path) -> None:
    """They are made where an ImageSet is sampled, so there would be none."""
    for data, name in (([torch.zeros(4, 3, 8, 8)], "list"), (TrainSampler(few_images, 4), "TrainSampler")):
        G, D = SmallG(), Small()
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.02) for net in (G, D)]
        with pytest.raises(
            ConfigError, match=f"flip=true would have no effect: .* and {name} makes its batches"
        ):
            Trainer(G, D, *optimizers, data, outdir=tmp_path / "run", nz=8, batch_size=4, flip=True)
