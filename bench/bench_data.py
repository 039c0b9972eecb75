"""Training batches from a packed store, in images a second; and what it costs to check a store and a cache.

Memory traffic sets the limit. An image of 64 x 64 has 12,288 bytes. It is read from the memory map, gathered into a
batch (written and read), converted to float32 (49,152 bytes written) and scaled in place (49,152 bytes read and
written): 0.18 MB in all. 50,000 images a second are 9.2 GB/s.

A store and a cache of reals' features are compared with their checksums when they are opened. Here their files are in
the operating system's memory, so the cost is that of SHA-256. A disk that is slower than the rates below is the limit.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from fastdat.data import TrainSampler, load_split, pack
from fastdat.data.split_files import checking_threads
from fastdat.metrics import reals
from fastdat.metrics.scores import Statistics

GOAL = 50_000  # images of 64 x 64 a second, on two cores
SIZE, COUNT = 64, 16_384
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 16,384 images of random pixels: 200 MB, more than the processor's caches hold."""
    source, dest = (tmp_path_factory.mktemp("stores") / name for name in ("noise", "store"))
    source.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(source / f"{i:05d}.bmp")
    pack("folder", source, dest, resolution=SIZE, splits=("train",))
    return dest


@pytest.mark.parametrize("resident", [True, False], ids=["direct", "thread"])
@pytest.mark.parametrize("batch", [64, 256])
def bench_batches(benchmark: BenchmarkFixture, store: Path, batch: int, resident: bool) -> None:
    """Batches in the order of training."""
    sampler = TrainSampler(
        load_split("folder", store, "train", SIZE), batch, device=DEVICE, resident=resident
    )
    step = iter(range(10**9))
    try:
        benchmark(lambda: sampler.batch(next(step)))
    finally:
        sampler.close()
    assert benchmark.stats is not None
    rate = batch / benchmark.stats.stats.median
    benchmark.extra_info.update(images_per_second=round(rate), goal=GOAL, device=DEVICE.type)


# --- opening a store and a cache of reals: what reading every byte costs -----------------------------------------

CIFAR10 = (50_000, 3, 32, 32)
FEATURES = (10_000, 2048)


@pytest.fixture(scope="module")
def cifar10_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of as many bytes as the training images of CIFAR-10, of random pixels."""
    source, dest = (tmp_path_factory.mktemp("stores") / name for name in ("cifar-100-python", "store"))
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (CIFAR10[0], 3072), np.uint8)
    labels = [i % 100 for i in range(CIFAR10[0])]
    (source / "train").write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}, protocol=2))
    names = [f"class {i}" for i in range(100)]
    (source / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    pack("cifar100", source, dest, splits=("train",))
    return dest


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "mapped-only"])
def bench_opening_a_store(benchmark: BenchmarkFixture, cifar10_store: Path, checked: bool) -> None:
    """A split of the size of CIFAR-10, whose files the operating system has in memory."""

    def mapped_only() -> None:
        np.load(cifar10_store / "train.images.npy", mmap_mode="r")
        np.load(cifar10_store / "train.labels.npy")

    benchmark((lambda: load_split("cifar100", cifar10_store)) if checked else mapped_only)
    if checked:  # nothing is read otherwise, so there is no rate
        _report_rate(benchmark, math.prod(CIFAR10) + 8 * CIFAR10[0], threads=checking_threads())


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "read-only"])
def bench_reading_reals(benchmark: BenchmarkFixture, tmp_path: Path, checked: bool) -> None:
    """The cached features of 10,000 images, as many as Inception gives, whose files are in memory."""
    features = torch.from_numpy(np.random.default_rng(0).standard_normal(FEATURES, np.float32))
    sigma = np.eye(FEATURES[1])
    key = {"format": 0}
    reals._write(tmp_path / "entry", key, reals.Reals(features, Statistics(sigma[0], sigma)))

    def read_only() -> None:
        np.load(tmp_path / "entry" / "features.npy")
        with np.load(tmp_path / "entry" / "statistics.npz") as statistics:
            assert len(statistics["mu"]) == len(statistics["sigma"])

    benchmark((lambda: reals._read(tmp_path / "entry", key)) if checked else read_only)
    _report_rate(benchmark, features.nbytes + sigma.nbytes)


def _report_rate(benchmark: BenchmarkFixture, size: int, **more: int) -> None:
    assert benchmark.stats is not None
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        seconds=round(seconds, 4), GB_per_second=round(size / 1e9 / seconds, 2), **more
    )
