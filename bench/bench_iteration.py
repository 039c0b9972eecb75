"""A whole training iteration, five D steps and one G step: as released code is written, and by fastdat's trainer."""

from __future__ import annotations

import copy
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.bench_training import images_of, trainer_of
from bench.step.eager_baselines import released_dat_loss, sngan_loss
from bench.step.workloads import LossOf
from bench.timing.interleaved import ReplayClock, Timing, as_called, interleave
from fastdat import DATConfig
from fastdat.data import ImageSet
from fastdat.nets import SNGANDiscriminator, SNGANGenerator
from fastdat.util.net_modes import frozen

CLOCK = ReplayClock()
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH = 64 if CUDA else 16
N_DIS = 5
ROUNDS = 20 if CUDA else 7
WARM_UP = 5 if CUDA else 1
"""Rounds before those that count; on a GPU the fourth one captures a graph."""
BASELINE = "eager released DAT"
OTHERWISE: dict[str, dict[str, Any]] = {
    # By itself the trainer makes them in the other way.
    f"fastdat DAT, fakes {'step by step' if CUDA else 'at once'}": {"fakes_at_once": not CUDA},
    **({"fastdat DAT, not captured": {"cuda_graph": False}} if CUDA else {}),
}
"""Settings of further runs of the trainer."""
KINDS = (BASELINE, "eager SNGAN", "fastdat DAT", "fastdat DAT second order", *OTHERWISE)
GOAL = 0.60
"""fastdat's DAT against the released one, on a CPU."""

Iteration = Callable[[], None]


def eager(D: torch.nn.Module, G: torch.nn.Module, loss_of: LossOf, reals: Tensor, nz: int) -> Iteration:
    """The iteration in plain eager PyTorch; reals (N_DIS, BATCH, 3, 32, 32)."""
    opt_d, opt_g = (torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9)) for net in (D, G))

    def iterate() -> None:
        for xr in reals:
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
                with torch.no_grad():
                    xf = G(torch.randn(BATCH, nz, device=DEVICE)).to(xr.dtype)
                loss = loss_of(D, xr, xf)
            opt_d.zero_grad(set_to_none=True)
            loss.backward()
            opt_d.step()
        with frozen(D):  # released code computes D's gradients here too, and does not use them
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
                loss = -D(G(torch.randn(BATCH, nz, device=DEVICE))).mean()
            opt_g.zero_grad(set_to_none=True)
            loss.backward()
        opt_g.step()

    return iterate


def by_trainer(config: DATConfig, images: ImageSet, outdir: Path, **changes: Any) -> Iteration:
    """The iterations of `Trainer`, compiled, and on a GPU captured; without logs, samples and checkpoints."""
    settings: dict[str, Any] = {"batch_size": BATCH, "n_dis": N_DIS, "dat": config, "lr_decay": "none"}
    trainer = trainer_of(images, outdir, **settings | changes)
    trainer._begin()
    trainer.folder.close()
    steps = itertools.count()

    def iterate() -> None:
        trainer.iteration.run(next(steps))

    return iterate


@pytest.fixture(scope="module")
def timings(cifar10_or_none: Path | None) -> Iterator[dict[str, Timing]]:
    """Every kind of iteration, timed in turns, on nets of the paper's width."""
    images = images_of(cifar10_or_none)
    reals = (images.images[: N_DIS * BATCH].to(DEVICE) / 127.5 - 1).unflatten(0, (N_DIS, BATCH))
    torch.manual_seed(0)
    G, D = SNGANGenerator(32).to(DEVICE), SNGANDiscriminator(32).to(DEVICE)
    if CUDA:
        G, D = (net.to(memory_format=torch.channels_last) for net in (G, D))  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder:
        iterations = {
            BASELINE: eager(copy.deepcopy(D), copy.deepcopy(G), released_dat_loss, reals, G.nz),
            "eager SNGAN": eager(D, G, sngan_loss, reals, G.nz),
        }
        for name, config in (
            ("fastdat DAT", DATConfig()),
            ("fastdat DAT second order", DATConfig(second_order=True)),
        ):
            iterations[name] = by_trainer(config, images, Path(folder, name))
        for name, changes in OTHERWISE.items():
            iterations[name] = by_trainer(DATConfig(), images, Path(folder, name), **changes)
        rounds = int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS))
        yield interleave(iterations, as_called(DEVICE), rounds=rounds, warmup=WARM_UP)
    torch.compiler.reset()


@pytest.mark.benchmark(timer=CLOCK, group="one training iteration")
@pytest.mark.parametrize("kind", KINDS)
def bench_iteration(benchmark: BenchmarkFixture, timings: dict[str, Timing], kind: str) -> None:
    """SNGAN-32: five D steps and one G step. `bench_dat_step.py` checks the gradients of the D steps."""
    ratio = timings[kind].median / timings[BASELINE].median
    benchmark.extra_info.update(
        timings[kind].summary(), batch=BATCH, n_dis=N_DIS, over_released=ratio, goal=GOAL
    )
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(timings[kind]))
