"""From a packed store to training batches: what feeds the nets, images a second.

The floor is memory traffic. An image of 64 x 64 is 12,288 bytes: read from the map, gathered into a batch (write,
read), widened to float32 (write 49,152) and scaled in place (read and write 49,152), 0.18 MB in all: 50,000 images a
second are 9.2 GB/s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from fastdat.data import TrainSampler, load_split, pack

GOAL = 50_000  # images of 64 x 64 a second, on two cores
SIZE, COUNT = 64, 16_384
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 16,384 images (200 MB: more than any cache holds), each of random pixels."""
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
    """Batches in the order of training, one after the other."""
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
