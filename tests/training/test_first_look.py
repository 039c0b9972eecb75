"""Mistakes in nets, optimizers and reals that are found before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.training import ConfigError, Trainer
from tests.training.runs import OWN_NETS, read_log, resumable, silent, trainer_of

Nets = tuple[nn.Module, nn.Module]


def small_nets(nz: int = 8, size: int = 6) -> Nets:
    G = nn.Sequential(
        nn.Linear(nz, 3 * size * size), nn.BatchNorm1d(3 * size * size), nn.Unflatten(1, (3, size, size))
    )
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 1))
    return G, D


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 0.01)


def trainer(reals: Any, outdir: Path, nets: Nets | None = None, make: Any = None, **settings: Any) -> Trainer:
    """Of two small nets on reals (4, 3, 6, 6); ``make`` gives optG and optD."""
    netG, netD = nets or small_nets()
    optG, optD = make(netG, netD) if make else (sgd(netG), sgd(netD))
    chosen = OWN_NETS | {"n_dis": 1, "steps": 2} | settings
    return Trainer(netG, netD, optG, optD, reals, outdir=outdir, display=silent(), **chosen)


# --- optimizers ------------------------------------------------------------------------------------------------------


def shared(G: nn.Module, D: nn.Module) -> tuple[Any, Any]:
    optimizer = torch.optim.SGD([*G.parameters(), *D.parameters()], 0.01)
    return optimizer, optimizer


OPTIMIZERS: dict[str, tuple[Callable[[nn.Module, nn.Module], tuple[Any, Any]], str]] = {
    "one for both": (shared, "optG and optD are the same object: make one optimizer for G"),
    "swapped": (
        lambda G, D: (sgd(D), sgd(G)),
        r"optG holds 2 parameter.s. of netD, the first one is 1\.weight: give it netG",
    ),
    "D holds G's": (
        lambda G, D: (sgd(G), torch.optim.SGD([*D.parameters(), *G.parameters()], 0.01)),
        r"optD holds 4 parameter.s. of netG, the first one is 0\.weight: give it netD\.parameters\(\)",
    ),
    "misses D's": (
        lambda G, D: (sgd(G), torch.optim.SGD([next(D.parameters())], 0.01)),
        r"optD lacks 1 parameter.s. of netD, the first one is 1\.bias, which would never be trained",
    ),
    "of an earlier D": (
        lambda G, D: (sgd(G), sgd(small_nets()[1])),
        r"optD lacks 2 parameter.s. of netD, the first one is 1\.weight",
    ),
    "closure": (
        lambda G, D: (sgd(G), torch.optim.LBFGS(D.parameters())),
        "optD is a LBFGS, whose step evaluates the loss again",
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_wrong_optimizers_are_refused(name: str, tmp_path: Path) -> None:
    make, message = OPTIMIZERS[name]
    with pytest.raises(ConfigError, match=message):
        trainer([torch.zeros(4, 3, 6, 6)], tmp_path / "run", make=make)
    assert not (tmp_path / "run").exists()


def test_nets_that_share_parameters_are_refused(tmp_path: Path) -> None:
    netG, netD = small_nets()
    netD.register_module("of_G", netG[0])  # type: ignore[index]
    with pytest.raises(
        ConfigError, match=r"netG and netD share parameters, the first one is netD's of_G\.weight"
    ):
        trainer([torch.zeros(4, 3, 6, 6)], tmp_path / "run", (netG, netD))


def test_what_no_checkpoint_could_hold_is_refused_before_the_first_step(tmp_path: Path) -> None:
    def make(G: nn.Module, D: nn.Module) -> Any:
        return sgd(G), torch.optim.SGD(D.parameters(), 0.01, weight_decay=np.float64(1e-4))

    run = trainer([torch.rand(4, 3, 6, 6) * 2 - 1], tmp_path, make=make)
    with pytest.raises(ConfigError, match=r"\['weight_decay'\] is a float64\. Convert it with float"):
        run.train()


def test_frozen_parameters_need_no_optimizer(tmp_path: Path) -> None:
    netG, netD = small_nets()
    netD[1].bias.requires_grad_(False)  # type: ignore[index]
    trained = [p for p in netD.parameters() if p.requires_grad]
    reals = [torch.rand(4, 3, 6, 6) * 2 - 1]
    trainer(reals, tmp_path, (netG, netD), lambda G, D: (sgd(G), torch.optim.SGD(trained, 0.01))).train()


# --- reals -----------------------------------------------------------------------------------------------------------


RANGES: dict[str, tuple[Callable[[], Tensor], str]] = {
    "[0, 1]": (lambda: torch.rand(4, 3, 6, 6), r"x \* 2 - 1"),
    "0..255": (lambda: torch.rand(4, 3, 6, 6) * 255, r"x / 127\.5 - 1"),
    "standardised": (lambda: torch.randn(4, 3, 6, 6) * 2, "scale the samples to that range"),
    "NaN later": (
        lambda: torch.where(torch.rand(4, 3, 6, 6) < 0.01, torch.nan, torch.rand(4, 3, 6, 6)),
        "the first reals hold NaN or infinity",
    ),
    "NaN": (lambda: torch.full((4, 3, 6, 6), torch.nan), "the first reals hold NaN or infinity"),
    "resolution": (
        lambda: torch.rand(4, 3, 8, 8) * 2 - 1,
        r"netG makes samples of shape \(3, 6, 6\), and the reals are \(3, 8, 8\)",
    ),
}


class Own:
    """Reals by step that a user makes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def batch(self, step: int) -> Any:
        return self.make()


@pytest.mark.parametrize("own", [False, True], ids=["loader", "batches"])
@pytest.mark.parametrize("name", RANGES)
def test_wrong_reals_are_refused_before_the_first_step(name: str, own: bool, tmp_path: Path) -> None:
    make, message = RANGES[name]
    run = trainer(Own(make) if own else [make() for _ in range(3)], tmp_path)
    weights = [p.clone() for p in run.netD.parameters()]
    with pytest.raises(ConfigError, match=message):
        run.train()
    assert all(map(torch.equal, weights, run.netD.parameters()))
    assert run.done == 0


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([1.0], "must return a floating-point tensor of 4 samples on cpu; got a list"),
        (
            torch.zeros(4, 3, 6, 6, dtype=torch.uint8),
            r"4 samples on cpu \(config.batch_size\); got torch.uint8",
        ),
        (torch.zeros(5, 3, 6, 6), r"got torch.float32 of shape \(5, 3, 6, 6\)"),
        (torch.zeros(4, 3, 6, 6, device="meta"), "got one on meta"),
    ],
)
def test_batches_of_another_kind_are_refused(made: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(Own(lambda: made), tmp_path).train()


def test_a_few_bright_images_are_no_mistake(tmp_path: Path) -> None:
    """Their range is open until a darker one comes; all other ranges stay as they are without bounds."""
    bright, dark = torch.rand(4, 3, 6, 6), torch.rand(4, 3, 6, 6) - 1
    bright[0, 0, 0, :2] = torch.tensor([0.0, 1.000005])  # the rounding of fp32 is no mistake either
    trainer([bright, bright, dark], tmp_path / "a").train()
    trainer([torch.rand(4, 3, 6, 6) * 255], tmp_path / "b", **{"dat.bounds": None}).train()
    trainer([torch.rand(4, 3, 6, 6)], tmp_path / "c", **{"dat.bounds": [0, 1]}).train()


@pytest.mark.parametrize(("brightest", "batches"), [(1.0, 16), (1.5, 1)])
def test_how_many_are_looked_at(brightest: float, batches: int, tmp_path: Path) -> None:
    """64 without a value below zero are enough, and none more where the first ones leave the bounds."""
    asked: list[int] = []

    def bright() -> Tensor:
        asked.append(1)
        return torch.full((4, 3, 6, 6), brightest)

    with pytest.raises(ConfigError, match="the first batch of reals has values in"):
        trainer(Own(bright), tmp_path).train()
    assert len(asked) == batches


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    """Neither the running statistics of G, nor the order of reals, nor anybody's random numbers."""
    seen: list[Tensor] = []

    def make() -> Tensor:
        seen.append(torch.rand(4, 3, 6, 6) * 2 - 1)
        return seen[-1]

    run = trainer(Own(make), tmp_path, samples=4)
    before = {name: value.clone() for name, value in run.netG.state_dict().items()}
    torch.manual_seed(5)
    run._begin()
    run.folder.close()
    assert all(torch.equal(value, before[name]) for name, value in run.netG.state_dict().items())
    torch.manual_seed(5)
    assert len(seen) == 2, "at the first look and for reals.png"
    assert all(torch.equal(reals, torch.rand(4, 3, 6, 6) * 2 - 1) for reals in seen)


# --- G ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small_nets(nz=16),
            r"netG cannot be called on z of shape \(2, 8\): .*\. Its first layer takes 16 numbers: set nz=16\.",
        ),
        (lambda: (Labelled(), small_nets()[1]), r"netG cannot be called on z of shape \(2, 8\): .*labels"),
        (lambda: (Several(8, 108), small_nets()[1]), "netG must return a tensor of samples, got a tuple"),
    ],
    ids=["nz", "labels", "several outputs"],
)
def test_a_generator_that_does_not_fit_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer([torch.rand(4, 3, 6, 6) * 2 - 1], tmp_path, make()).train()


class Labelled(nn.Module):
    """Needs labels, which a run without classes does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return z * self.weight


class Several(nn.Linear):
    def forward(self, z: Tensor) -> Any:
        return (super().forward(z),)


def test_the_look_is_at_the_next_batch_of_a_resumed_run(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(resumable(steps=2, lr_decay="none"), few_images, tmp_path).train()
    run = trainer_of(resumable(steps=4, lr_decay="none"), few_images, tmp_path)
    asked: list[int] = []
    batches: Any = run.iteration.batches
    batch = batches.batch

    def remembered(step: int) -> Tensor:
        asked.append(step)
        return batch(step)

    batches.batch = remembered
    run.train()
    assert asked == [4, 4, 5, 6, 7]
    assert "resumed after 2 steps" in read_log(tmp_path)


def test_nets_in_evaluation_mode_are_put_into_training_mode(tmp_path: Path) -> None:
    """As those of fastdat.load are; layers that are frozen on purpose stay frozen."""
    netG, netD = small_nets()
    netG.eval()
    netD.append(nn.BatchNorm1d(1)).train()[2].eval()
    before = [norm.running_mean.clone() for norm in (netG[1], netD[2])]
    trainer([torch.rand(4, 3, 6, 6) * 2 - 1], tmp_path, (netG, netD)).train()
    assert not torch.equal(netG[1].running_mean, before[0])
    assert torch.equal(netD[2].running_mean, before[1])
    assert "netG was in evaluation mode" in read_log(tmp_path)
    assert "netD was in" not in read_log(tmp_path)


class Conditional(nn.Module):
    """Any net with labels."""

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net, self.of_class = net, nn.Embedding(classes, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out + self.of_class(labels).reshape(-1, *(1,) * (out.ndim - 1))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 1.0, 2.0, 1.0]), r"4 integers in 0 \.\. 2, .*, as int64; got torch\.float32"),
        (torch.tensor([[0], [1], [2], [1]]), r"one for each image; got the shape \(4, 1\)"),
        (torch.tensor([0, 1, 3, 1]), r"got 0 \.\. 3\. Is classes=3 right"),
        (torch.tensor([0, -1, 2, 1]), r"got -1 \.\. 2\. Is classes=3 right"),
    ],
    ids=str,
)
def test_labels_that_are_no_classes(labels: Tensor, message: str, tmp_path: Path) -> None:
    netG, netD = (Conditional(net, 3) for net in small_nets())
    reals = torch.rand(4, 3, 6, 6) * 2 - 1
    with pytest.raises(ConfigError, match=message):
        trainer([(reals, labels)], tmp_path / "wrong", (netG, netD), classes=3).train()
    trainer([(reals, torch.tensor([0, 2, 1, 1]))], tmp_path / "right", (netG, netD), classes=3).train()


def test_a_regularizer_without_the_output_of_D_that_it_needs(tmp_path: Path) -> None:
    """Said before the run folder has anything in it."""
    san = {"regularizers": [{"name": "san"}]}
    reals = torch.rand(4, 3, 6, 6) * 2 - 1
    with pytest.raises(
        ConfigError, match=r"the regularizer san needs a further output of D, .* leave san out"
    ):
        trainer([reals], tmp_path, **san).train()
    assert not (tmp_path / "config.yaml").exists()


def test_batch_norms_of_D_and_a_microbatch(tmp_path: Path) -> None:
    netG, netD = small_nets()
    netD.append(nn.BatchNorm1d(1))
    with pytest.raises(
        ConfigError, match=r"microbatch=2: Sequential has batch norms \(2\), whose statistics"
    ):
        trainer([torch.zeros(4, 3, 6, 6)], tmp_path / "run", (netG, netD), microbatch=2)
    netD[2].eval()
    trainer([torch.rand(4, 3, 6, 6) * 2 - 1], tmp_path / "run", (netG, netD), microbatch=2).train()


class Unlabelled:
    """Batches of one's own, without labels."""

    def batch(self, step: int) -> Tensor:
        return torch.zeros(4, 3, 6, 6)


def test_batches_without_labels_for_conditional_nets(tmp_path: Path) -> None:
    netG, netD = (Conditional(net, 3) for net in small_nets())
    with pytest.raises(ConfigError, match=r"conditional, but the Unlabelled .* has no method labels\(step\)"):
        trainer(Unlabelled(), tmp_path / "run", (netG, netD), classes=3).train()
