"""The cost of the training loop beside its steps, and the growth of the process during a long run."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.timing.interleaved import ReplayClock, Timing, as_called, interleave
from fastdat.data import ImageSet, load_cifar10
from fastdat.training import Trainer, build_trainer, preset
from fastdat.training.display import Lines

CLOCK = ReplayClock()
CUDA = torch.cuda.is_available()
#: Steps in a timing, of which the last one logs; on a GPU that is as often as by default.
BLOCK = 50 if CUDA else 10
ROUNDS = 10 if CUDA else 8
GOAL = 1.03
GROWTH_GOAL = 8.0  # MiB between step 500 and 2,000, within the noise of a process's size


def trainer_of(data: ImageSet, outdir: Path, **changes: Any) -> Trainer:
    settings = {"eval.every": None, "sample_every": 10**9, "checkpoints.every": 10**9, "log_every": BLOCK}
    return build_trainer(
        preset("sngan-dat-cifar10").replace(settings | changes), data, outdir, display=Lines(io.StringIO())
    )


def images_of(root: Path | None) -> ImageSet:
    """Real CIFAR-10, or noise of the same shape where there is none."""
    if root is not None:
        return load_cifar10(root)
    noise = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    return ImageSet("noise", noise, torch.zeros(50_000, dtype=torch.int64), ("none",))


@pytest.fixture(scope="module")
def images(cifar10_or_none: Path | None) -> ImageSet:
    return images_of(cifar10_or_none)


@pytest.fixture(scope="module")
def timings(images: ImageSet) -> Iterator[dict[str, Timing]]:
    """Blocks of iterations by the trainer and of the bare steps, on the same nets, timed in turns."""
    width = {"precision": "bf16", "channels_last": True} if CUDA else {"ngf": 64, "ndf": 64, "batch_size": 16}
    rounds = int(os.environ.get("FASTDAT_BENCH_ROUNDS", ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        # Launched one by one, as the bare steps are: bench_iteration compares captured iterations.
        trainer = trainer_of(images, Path(folder, "run"), n_dis=1, steps=10**6, cuda_graph=False, **width)
        trainer._begin()
        trainer._iterate()
        batch, steps = trainer.config.batch_size, trainer.iteration.steps
        reals: list[Tensor] = [trainer.iteration.batches.batch(i).clone() for i in range(BLOCK)]
        latents = torch.randn(2 * BLOCK, 1, batch, trainer.config.nz, device=reals[0].device).unbind()

        def bare() -> None:
            for i in range(BLOCK):
                (xf,) = steps.fakes(latents[2 * i])
                steps.discriminator(reals[i], xf)
                steps.generator(latents[2 * i + 1][0])

        def loop() -> None:
            for _ in range(BLOCK):
                trainer._iterate()

        clock = as_called(reals[0].device)
        yield interleave({"bare steps": bare, "trainer": loop}, clock, rounds=rounds, warmup=1)
        trainer.folder.close()
    torch.compiler.reset()


@pytest.mark.benchmark(timer=CLOCK, group=f"{BLOCK} training iterations")
@pytest.mark.parametrize("kind", ["bare steps", "trainer"])
def bench_loop(benchmark: BenchmarkFixture, timings: dict[str, Timing], kind: str) -> None:
    """SNGAN-32 with DAT, one D and one G step an iteration.

    The trainer also draws batches and noise, decays the learning rate, measures and logs.
    """
    ratio = timings["trainer"].median / timings["bare steps"].median
    benchmark.extra_info.update(timings[kind].summary(), iterations=BLOCK, trainer_over_bare=ratio, goal=GOAL)
    benchmark.pedantic(CLOCK.play, rounds=CLOCK.load(timings[kind]))


def bench_memory(benchmark: BenchmarkFixture, images: ImageSet, tmp_path: Path) -> None:
    """Size of the process after 500 and after 2,000 iterations of a tiny GAN."""
    tiny = {"ngf": 4, "ndf": 4, "batch_size": 4, "n_dis": 1, "compile": False, "log_every": 50}
    trainer = trainer_of(
        images, tmp_path / "run", steps=2000, sample_every=250, **tiny, **{"checkpoints.every": 250}
    )
    iterate, seen = trainer._iterate, dict[int, float]()

    def watched() -> None:
        iterate()
        if trainer.done in (500, 2000):
            seen[trainer.done] = _mebibytes()

    trainer._iterate = watched  # type: ignore[method-assign]
    benchmark.pedantic(trainer.train, rounds=1)
    growth = seen[2000] - seen[500]
    benchmark.extra_info.update(mebibytes=seen, growth_mebibytes=growth, goal=GROWTH_GOAL)
    assert growth <= GROWTH_GOAL, f"{growth:.1f} MiB more after 2,000 steps than after 500"


def _mebibytes() -> float:
    """Memory of this process in MiB; on a GPU, of its tensors there."""
    if CUDA:
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
