"""The sampler: a batch depends on (seed, step, rank) alone, epochs are permutations, ranks share them."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdat.data import ImageSet, TrainSampler
from fastdat.data import sampler as sampler_module
from fastdat.data.sampler import lies_on_gpu


def numbered(count: int) -> ImageSet:
    """Image i has the value i in its left column and 0 elsewhere, so it can be recognised, flipped or not."""
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, :, 0] = torch.arange(count, dtype=torch.uint8)[:, None]
    return ImageSet("numbered", images, torch.zeros(count, dtype=torch.int64), ())


def numbers(batch: torch.Tensor) -> list[int]:
    """The numbers of the images in a batch."""
    return ((batch + 1) * 127.5).round().amax((1, 2, 3)).int().tolist()


def test_an_epoch_shows_every_image_once() -> None:
    sampler = TrainSampler(numbered(20), 4, seed=3)
    epochs = [[n for step in range(5 * e, 5 * e + 5) for n in numbers(sampler.batch(step))] for e in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_incomplete_last_batch_is_dropped() -> None:
    sampler = TrainSampler(numbered(11), 4)
    assert sampler.batches_per_epoch == 2
    seen = numbers(sampler.batch(0)) + numbers(sampler.batch(1))
    assert len(set(seen)) == 8


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(0, 200), min_size=1, max_size=8), seed=st.integers(0, 2**40))
def test_any_order_of_steps_gives_the_same_batches(steps: list[int], seed: int) -> None:
    data = numbered(32)
    one = TrainSampler(data, 5, seed=seed, flip=True)
    for step in steps:
        assert torch.equal(one.batch(step), TrainSampler(data, 5, seed=seed, flip=True).batch(step))


@pytest.mark.parametrize(("count", "at_once"), [(50, 7), (48, 16), (100_003, None)])
def test_order_and_flips_are_those_of_one_draw_in_full_precision(
    count: int, at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is kept in int32 and flips are drawn in parts. Runs of earlier versions go on with their batches."""
    if at_once is not None:
        monkeypatch.setattr("fastdat.data.sampler._FLIPS_AT_ONCE", at_once)
    number = torch.arange(count)
    images = torch.stack([number % 256, number // 256 % 256, number // 65_536], 1).to(torch.uint8)[
        :, :, None, None
    ]
    images = torch.cat([images, images * 0], 3)  # (N, 3, 1, 2): a flip shows
    data = ImageSet("numbered", images, torch.zeros(count, dtype=torch.int64), ())
    sampler = TrainSampler(data, count, seed=9, flip=True)
    for epoch in (0, 3):
        drawn = [
            torch.Generator().manual_seed(
                int(np.random.SeedSequence([9, epoch, stream]).generate_state(1, np.uint64)[0])
            )
            for stream in (0, 1)
        ]
        order = torch.randperm(count, generator=drawn[0])
        flips = torch.rand(count, generator=drawn[1]) < 0.5
        plain = images[order].float()
        plain[flips] = plain[flips].flip(-1)
        assert torch.equal(sampler.batch(epoch), torch.sub(plain, 127.5) * (1 / 127.5))
        rows, mirrored = sampler.fetched(epoch)
        assert (rows.dtype, mirrored.dtype) == (torch.int64, torch.bool)


@pytest.mark.parametrize(
    ("count", "dtype"), [(7, torch.int32), ((1 << 31) - 1, torch.int32), (1 << 31, torch.int64)]
)
def test_the_order_has_the_smallest_type_that_suffices(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(torch, "randperm", lambda count, *, generator, dtype: drawn.append((count, dtype)))
    sampler_module._order(count, torch.Generator())
    assert drawn == [(count, dtype)]


def test_the_smallest_and_the_largest_batch() -> None:
    whole = TrainSampler(numbered(6), 6, seed=2)
    assert whole.batches_per_epoch == 1
    one = TrainSampler(numbered(6), 1, seed=2)
    assert [numbers(one.batch(step))[0] for step in range(6)] == numbers(whole.batch(0))
    halves = [TrainSampler(numbered(6), 3, seed=2, rank=rank, world_size=2) for rank in range(2)]
    assert [n for half in halves for n in numbers(half.batch(0))] == numbers(whole.batch(0))


def test_seeds_differ() -> None:
    data = numbered(100)
    a, b = (numbers(TrainSampler(data, 50, seed=seed).batch(0)) for seed in (0, 1))
    assert a != b


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_process_sees(world_size: int) -> None:
    data = numbered(64)
    whole = TrainSampler(data, 4 * world_size, seed=1, flip=True)
    ranks = [
        TrainSampler(data, 4, seed=1, flip=True, rank=r, world_size=world_size) for r in range(world_size)
    ]
    for step in (0, 3, 17):
        assert torch.equal(torch.cat([rank.batch(step) for rank in ranks]), whole.batch(step))


def test_values_cover_minus_one_to_one_exactly() -> None:
    batch = TrainSampler(numbered(256), 256).batch(0)
    assert batch.dtype == torch.float32
    assert batch.min() == -1
    assert batch.max() == 1
    assert sorted(numbers(batch)) == list(range(256))


def test_flips_mirror_about_half_of_the_samples() -> None:
    data = ImageSet("x", numbered(256).images[1:], torch.zeros(255, dtype=torch.int64), ())
    plain = TrainSampler(data, 250).batch(0)
    flipped = TrainSampler(data, 250, flip=True).batch(0)
    mirrored = (plain != flipped).flatten(1).any(1)
    assert 90 < mirrored.sum() < 160
    assert torch.equal(flipped[mirrored], plain[mirrored].flip(-1))


def test_memory_format() -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    data = ImageSet("x", images, torch.zeros(4, dtype=torch.int64), ())
    for flip in (False, True):
        batch = TrainSampler(data, 2, flip=flip, memory_format=torch.channels_last).batch(0)
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_real_images(cifar10: ImageSet) -> None:
    sampler = TrainSampler(cifar10, 64, seed=0, flip=True)
    assert sampler.batches_per_epoch == 781
    batch = sampler.batch(12345)
    assert batch.shape == (64, 3, 32, 32)
    assert -1 <= batch.min() < -0.9
    assert 0.9 < batch.max() <= 1
    assert batch.mean().abs() < 0.2


@pytest.mark.gpu
def test_cuda_draws_what_the_cpu_draws() -> None:
    data = numbered(64)
    cpu, cuda = (TrainSampler(data, 8, flip=True, device=device) for device in ("cpu", "cuda"))
    for step in (0, 5, 9):
        assert torch.equal(cuda.batch(step).cpu(), cpu.batch(step))


def test_errors() -> None:
    data = numbered(10)
    with pytest.raises(ValueError, match=r"numbered has 10 images; got batch_size=11 .* Choose from 1 to 10"):
        TrainSampler(data, 11)
    with pytest.raises(ValueError, match=r"batch_size=6 on 2 rank\(s\), 12 per batch. Choose from 1 to 5"):
        TrainSampler(data, 6, world_size=2)
    with pytest.raises(ValueError, match="batch_size=0"):
        TrainSampler(data, 0)
    with pytest.raises(ValueError, match=r"rank must lie in range\(2\), the world size; got 2"):
        TrainSampler(data, 1, rank=2, world_size=2)


def test_which_sets_lie_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies on all ranks together may take a third of what is free: 480 bytes here, 12 images of 40."""
    assert lies_on_gpu(480, 1440)
    assert not lies_on_gpu(481, 1440)
    assert lies_on_gpu(160, 1440, copies=3)
    assert not lies_on_gpu(161, 1440, copies=3)
    monkeypatch.setattr("fastdat.data.sampler._free", lambda device: 1440)
    images = torch.zeros(12, 2, 4, 5, dtype=torch.uint8)
    data = ImageSet("twelve", images, torch.zeros(12, dtype=torch.int64), ())
    assert TrainSampler(data, 2).resident
    shared = TrainSampler(data, 2, rank=1, world_size=2)
    shared.close()
    assert not shared.resident, "each rank would hold a copy"
    monkeypatch.setattr("fastdat.data.sampler._free", lambda device: 2880)
    assert TrainSampler(data, 2, rank=1, world_size=2).resident


def test_what_is_free_is_asked_of_the_batches_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 + device.index, 9999))
    assert sampler_module._free(torch.device("cuda", 3)) == 103
    assert sampler_module._free(torch.device("cpu")) is None


# --- labels, and batches gathered ahead --------------------------------------------------------------------------


def test_labels_belong_to_the_images(few_images: ImageSet) -> None:
    sampler = TrainSampler(few_images, 8, seed=3, flip=True)
    for step in (0, 5, 12, 40):
        images, labels = sampler.batch(step), sampler.labels(step)
        assert labels.dtype == torch.int64
        pixels = ((images + 1) * 127.5).round().to(torch.uint8)
        for image, label in zip(pixels, labels, strict=True):
            sides = (few_images.images, few_images.images.flip(-1))
            same = [i for i in range(100) if any(torch.equal(side[i], image) for side in sides)]
            assert label in few_images.labels[same]


@pytest.mark.parametrize("steps", [range(30), [7, 8, 3, 29, 0, 1], [25, 24, 23]], ids=str)
def test_a_thread_gathers_the_same_batches(few_images: ImageSet, steps: Sequence[int]) -> None:
    options: dict[str, Any] = {"seed": 5, "flip": True, "rank": 1, "world_size": 2}
    direct = TrainSampler(few_images, 8, **options)
    ahead = TrainSampler(few_images, 8, resident=False, **options)
    try:
        for step in steps:
            assert torch.equal(direct.batch(step), ahead.batch(step))
            assert torch.equal(direct.labels(step), ahead.labels(step))
    finally:
        ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastdat-batches")]


def test_a_thread_makes_three_batches_ahead_and_none_twice() -> None:
    made: list[int] = []

    def make(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(step)
        return torch.tensor(step), torch.tensor(-step)

    ahead = sampler_module._Ahead(make)
    for step, expected in ((5, [5, 6, 7, 8]), (6, [9]), (6, []), (8, [10, 11]), (2, [2, 3, 4, 5])):
        made.clear()
        assert ahead.take(step) == (step, -step)
        while not all(future.done() for future in ahead._ready.values()):
            time.sleep(0.001)
        assert made == expected
    ahead.close()


def test_an_error_in_the_thread_is_raised_by_batch(
    few_images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = TrainSampler(few_images, 8, resident=False)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "randperm", fail)
    with pytest.raises(OSError, match="Input/output error"):
        ahead.batch(0)
    ahead.close()


def test_batches_own_their_memory(few_images: ImageSet) -> None:
    """No batch is a view of another batch or of the set."""
    sampler = TrainSampler(few_images, 8)
    first = sampler.batch(0)
    copy = first.clone()
    sampler.batch(1).zero_()
    assert torch.equal(first, copy)
    first.zero_()
    assert torch.equal(sampler.batch(0), copy)
