"""Training batches from a packed store, in images a second.

Memory traffic sets the limit. An image of 64 x 64 has 12,288 bytes. It is read from the memory map, gathered into a
batch (written and read), converted to float32 (49,152 bytes written) and scaled in place (49,152 bytes read and
written): 0.18 MB in all. 50,000 images a second are 9.2 GB/s.
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
