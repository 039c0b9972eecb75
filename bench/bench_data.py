"""Training batches from a packed store and packing, in images a second; what checking a store and a cache costs.

Memory traffic sets the limit. An image of 64 x 64 has 12,288 bytes. It is read from the memory map, gathered into a
batch (written and read), converted to float32 (49,152 bytes written) and scaled in place (49,152 bytes read and
written): 0.18 MB in all. 50,000 images a second are 9.2 GB/s.

A store and a cache of reals' features are compared with their checksums when they are opened. Here their files are in
the operating system's memory, so the cost is that of SHA-256. A disk that is slower than the rates below is the limit.
"""

from __future__ import annotations

import io
import math
import pickle
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from fastdat.data import DATASETS, TrainSampler, load_split, pack
from fastdat.data import lsun as lsun_reader
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

    def one() -> None:
        sampler.batch(next(step))
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()  # else only the launches are timed

    try:
        benchmark(one)
    finally:
        sampler.close()
    assert benchmark.stats is not None
    rate = batch / benchmark.stats.stats.median
    benchmark.extra_info.update(images_per_second=round(rate), goal=GOAL, device=DEVICE.type)


@pytest.mark.parametrize("work", ["gathered", "made", "made-with-flips"])
def bench_rows(benchmark: BenchmarkFixture, store: Path, work: str) -> None:
    """What one thread of the host does for a rank, at 256 rows a batch.

    ``gathered``: uint8 rows at random places of the memory map, which is all that is left to the host where batches go
    to a GPU. ``made``: from a set in memory to batches in float32, as on a CPU.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = load_split("folder", store, "train", SIZE)
    sampler = TrainSampler(data, 256, flip="flips" in work, resident=work != "gathered")
    make = sampler._gathered if work == "gathered" else sampler.batch
    step = iter(range(10**9))
    try:
        benchmark(lambda: make(next(step)))
    finally:
        sampler.close()
        torch.set_num_threads(threads)
    assert benchmark.stats is not None
    rate = 256 / benchmark.stats.stats.median
    benchmark.extra_info.update(
        images_per_second=round(rate), read_GB_per_second=round(rate * 3 * SIZE**2 / 1e9, 2), threads=1
    )


# --- packing LSUN ------------------------------------------------------------------------------------------------

LSUN_IMAGES, SCENES = 2048, 256
PACKING_GOAL = 500  # images a second and core


@pytest.fixture(scope="module")
def lsun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An lmdb database in LSUN's layout: WebP, shorter side 256, about as many bytes an image as LSUN's 14 kB."""
    lmdb = pytest.importorskip("lmdb")
    folder, rng, scenes = tmp_path_factory.mktemp("lsun"), np.random.default_rng(0), []
    for i in range(SCENES):
        file = io.BytesIO()
        _scene(rng, (341, 256) if i % 3 else (256, 341)).save(file, "webp", quality=75)
        scenes.append(file.getvalue())
    database = lmdb.open(str(folder / lsun_reader.FOLDER), map_size=1 << 30)
    with database, database.begin(write=True) as transaction:
        for i in range(LSUN_IMAGES):
            transaction.put(f"{i * 7919 % 100_003:040x}".encode(), scenes[i % SCENES])
    return folder


def _scene(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Contrast at all scales, the less the finer, as photographs have it; and the noise of a sensor."""
    width, height = size
    pixels = np.full((height, width, 3), 128.0)
    for scale, contrast in ((4, 50), (16, 25), (64, 14), (256, 5)):
        coarse = rng.normal(0, contrast, (scale, scale, 3)).clip(-127, 127)
        layer = Image.fromarray((coarse + 128).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        pixels += np.asarray(layer, np.float64) - 128
    return Image.fromarray((pixels + rng.normal(0, 4, (height, width, 1))).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("workers", [0, 1, 2])
def bench_packing_lsun(
    benchmark: BenchmarkFixture, lsun: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``fastdat data pack lsun-bedroom``, from its second piece on: the start of the processes is left out, since three
    million images take an hour. Workers 0 decodes in the process that writes."""
    reader = partial(lsun_reader.open_lsun_bedroom, test_images=10)
    monkeypatch.setitem(DATASETS, "lsun-bedroom", replace(DATASETS["lsun-bedroom"], open=reader))
    times: list[tuple[float, int]] = []

    def once() -> None:
        dest = tmp_path / str(len(times))
        pack(
            *("lsun-bedroom", lsun, dest), splits=("train",), workers=workers,
            progress=lambda _, done, *rest: times.append((time.perf_counter(), done)),
        )  # fmt: skip

    benchmark.pedantic(once, rounds=3)
    pieces = len(times) // 3
    runs = [times[i : i + pieces] for i in range(0, len(times), pieces)]
    rates = sorted((run[-1][1] - run[0][1]) / (run[-1][0] - run[0][0]) for run in runs)
    size = (lsun / lsun_reader.FOLDER / "data.mdb").stat().st_size
    benchmark.extra_info.update(
        images_per_second=round(rates[1]),
        images_per_second_and_core=round(rates[1] / max(1, workers)),
        goal=PACKING_GOAL,
        kB_an_image=round(size / 1e3 / LSUN_IMAGES, 1),
    )


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
