"""Captured iterations on a GPU: the numbers of the plain ones, without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat.data import ImageSet
from fastdat.engine.capture import CaptureError
from fastdat.training import TrainConfig, Trainer
from fastdat.training.replay import ReplayedIteration
from tests.training.runs import (
    assert_same,
    latest,
    read_log,
    read_stats,
    resumable,
    trainer_of,
    without_times,
)

pytestmark = pytest.mark.gpu

SETTINGS: dict[str, Any] = {
    "device": "cuda",
    "compile": True,
    "n_dis": 3,
    "steps": 9,
    "precision": "fp32",
    "channels_last": False,
    "cudnn_benchmark": False,  # two runs might choose different algorithms
}


@pytest.fixture
def noise() -> ImageSet:
    """A machine with a GPU may have no real images."""
    images = torch.randint(
        0, 256, (100, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageSet("noise", images, torch.arange(100) % 10, tuple("0123456789"))


@contextmanager
def same_kernels() -> Iterator[None]:
    """cuDNN's deterministic algorithms, which it chooses without timing them."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def both(config: TrainConfig, data: ImageSet | None, folder: Path) -> Trainer:
    """The captured one of two runs, whose results are the same to the last bit."""
    with same_kernels():
        for kind, captured in (("plain", False), ("captured", True)):
            trainer = trainer_of(config.replace({"cuda_graph": captured}), data, folder / kind)
            trainer.train()
    assert isinstance(trainer.iteration, ReplayedIteration)
    assert "an iteration is one CUDA graph from now on" in read_log(folder / "captured")
    states = [
        {key: latest(folder / kind)[key] for key in ("netG", "netD", "ema")} for kind in ("plain", "captured")
    ]
    assert_same(*states)
    assert_same(*(without_times(read_stats(folder / kind)) for kind in ("plain", "captured")))
    return trainer


@pytest.mark.smoke
def test_points(tmp_path: Path) -> None:
    trainer = both(resumable("mlp-dat-gaussians", **SETTINGS, flip=False), None, tmp_path)
    assert isinstance(trainer.iteration, ReplayedIteration)
    assert trainer.iteration.graphs == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dat.second_order": True, "augment": "color"},
        {"regularizers": [{"name": "gp", "every": 2}, {"name": "lecam"}]},
        {"microbatch": 2, "precision": "bf16", "channels_last": True},
    ],
    ids=["dat", "second order", "regularizers", "bf16 in parts"],
)
def test_images(changes: dict[str, Any], noise: ImageSet, tmp_path: Path) -> None:
    """DCGAN, whose layers all have deterministic kernels."""
    both(resumable("dcgan-dat-cifar10", **{**SETTINGS, **changes}), noise, tmp_path)


def test_a_rollback_goes_on_with_the_graph(noise: ImageSet, tmp_path: Path) -> None:
    config = resumable("sngan-dat-cifar10", **SETTINGS, log_every=1, on_nan="rollback")
    trainer = trainer_of(config, noise, tmp_path)
    run, left = trainer.iteration.run, [6]

    def broken(step: int) -> None:
        if step in left:
            left.remove(step)
            next(trainer.netD.parameters()).data.fill_(float("nan"))
        run(step)

    trainer.iteration.run = broken  # type: ignore[method-assign]
    trainer.train()
    assert "retry 1 of 3" in read_log(tmp_path)
    assert "made anew" not in read_log(tmp_path)
    assert latest(tmp_path)["step"] == 9


class Loop:
    """A user's loop: D with dropout, so that random numbers are drawn inside of the graph."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.D = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 1)).cuda()
        self.G = nn.Sequential(nn.Linear(3, 6), nn.Tanh()).cuda()
        rate = torch.tensor(1e-3, device="cuda")
        self.optD = torch.optim.Adam(self.D.parameters(), lr=rate, fused=True)
        self.losses: list[Tensor] = []

    def iteration(self, xr: Tensor) -> Tensor:
        z = torch.randn(len(xr), 3, device=xr.device)
        loss = fastdat.dat_step(self.D, xr, self.G(z).detach())
        self.optD.zero_grad()
        loss.backward()
        self.optD.step()
        return loss


@pytest.mark.smoke
def test_a_loop_of_ones_own() -> None:
    """Its random numbers are those of the plain loop, new in each replay; and nothing waits for the device."""
    found = []
    for captured in (False, True):
        loop = Loop()
        iterate: Any = loop.iteration
        if captured:
            iterate = fastdat.capture(loop.iteration, modules=(loop.G, loop.D), optimizers=loop.optD)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(loop.optD, 0.9)
        batches = [torch.rand(64, 6, generator=torch.Generator().manual_seed(i)).cuda() for i in range(9)]
        torch.cuda.manual_seed(1)
        losses = []
        for i, xr in enumerate(batches):
            if i == 5:
                torch.cuda.set_sync_debug_mode("error")
            try:
                losses.append(iterate(xr))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            scheduler.step()
        found.append([torch.stack(losses).detach(), *loop.D.state_dict().values()])
    assert iterate.graphs == 1
    assert len(set(found[1][0].tolist())) == 9
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_loop_that_waits_is_refused() -> None:
    net = nn.Linear(3, 1).cuda()

    def function(x: Tensor) -> Tensor:
        loss: Tensor = net(x).mean()
        return loss * loss.item()

    iterate = fastdat.capture(function, modules=net, warmup=1)
    iterate(torch.ones(2, 3, device="cuda"))
    with pytest.raises(CaptureError, match="cannot be captured as a CUDA graph"):
        iterate(torch.ones(2, 3, device="cuda"))
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert len(set(torch.randn(3, device="cuda").tolist())) == 3, "torch's random numbers go on"
    other = fastdat.capture(lambda x: net(x).mean(), modules=net, warmup=1)
    x = torch.ones(2, 3, device="cuda")
    assert torch.equal(other(x), other(x)), "another function can be captured"
    assert other.graphs == 1
