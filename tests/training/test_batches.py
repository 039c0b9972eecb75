"""Reals from a loader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from fastdat import nets
from fastdat.data import ImageSet, TrainSampler
from fastdat.training import ConfigError, TrainConfig, Trainer
from fastdat.training.batches import LoaderBatches, as_batches
from fastdat.util.ranks import Ranks
from tests.training.runs import OWN_NETS, silent


class Loader:
    """Yields batches as a DataLoader does: the last one is incomplete."""

    def __init__(self, data: ImageSet, labels: bool) -> None:
        self._data, self._labels = data, labels

    def __iter__(self) -> Iterator[Any]:
        for i in range(0, 10, 4):
            x = self._data.images[i : i + 4].float() / 127.5 - 1
            yield (x, self._data.labels[i : i + 4]) if self._labels else x


def test_file_names_beside_the_images_are_left_out() -> None:
    files = [(torch.full((3, 4, 4), i / 10), f"{i}.png") for i in range(4)]
    batches = LoaderBatches(DataLoader(files, 4), 4, torch.device("cpu"))
    assert torch.equal(batches.batch(0)[:, 0, 0, 0], torch.tensor([0.0, 0.1, 0.2, 0.3]))
    with pytest.raises(ConfigError, match="yields no labels"):
        batches.labels(0)
    labelled = [(x, i, name) for i, (x, name) in enumerate(files)]
    assert LoaderBatches(DataLoader(labelled, 4), 4, torch.device("cpu")).labels(0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("labels", [False, True])
def test_a_mimicry_like_loop(labels: bool, few_images: ImageSet, tmp_path: Path) -> None:
    """netD, netG, optD, optG, a loader, and settings by keyword."""
    if labels:
        netG: torch.nn.Module = nets.ConditionalSNGANGenerator(32, 10, ngf=4, nz=8)
        netD: torch.nn.Module = nets.ConditionalSNGANDiscriminator(32, 10, ndf=4)
    else:
        netG, netD = nets.SNGANGenerator(32, ngf=4, nz=8), nets.SNGANDiscriminator(32, ndf=4)
    trainer = Trainer(
        netD=netD,
        netG=netG,
        optD=torch.optim.Adam(netD.parameters(), 2e-4, betas=(0.0, 0.9)),
        optG=torch.optim.Adam(netG.parameters(), 2e-4, betas=(0.0, 0.9)),
        batches=Loader(few_images, labels),
        outdir=tmp_path / "run",
        classes=10 if labels else 0,
        display=silent(),
        steps=3,
        n_dis=2,
        batch_size=4,
        nz=8,
        compile=False,
        samples=6,
        logger="none",
    )
    trainer.train()
    assert trainer.done == 3


def test_a_loader_with_processes_ends_with_the_run(few_images: ImageSet, tmp_path: Path) -> None:
    """They are forked while signals are watched for."""
    images = torch.utils.data.TensorDataset(few_images.images.float() / 127.5 - 1)
    loader: Any = torch.utils.data.DataLoader(images, batch_size=4, num_workers=2, drop_last=True)
    netG = nets.SNGANGenerator(32, ngf=4, nz=8)
    netD = nets.SNGANDiscriminator(32, ndf=4)
    opts = [torch.optim.Adam(net.parameters(), 2e-4) for net in (netG, netD)]
    before = set(threading.enumerate())  # earlier tests may have left some: torch's pool of compilers, say
    Trainer(
        netG, netD, *opts, loader, outdir=tmp_path, display=silent(), **OWN_NETS | {"steps": 2, "n_dis": 1}
    ).train()
    ends = time.monotonic() + 20
    while (
        not set(threading.enumerate()) <= before and time.monotonic() < ends
    ):  # those of its queues end by themselves
        time.sleep(0.05)
    assert set(threading.enumerate()) <= before


class Endless:
    """Yields the same batch forever."""

    def __init__(self, batch: Tensor) -> None:
        self.batch_of_loader = batch

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.batch_of_loader


def test_a_short_last_batch_is_left_out() -> None:
    parts = [torch.full((4, 2), 1.0), torch.full((4, 2), 2.0), torch.full((2, 2), 3.0)]
    batches = LoaderBatches(parts, 4, torch.device("cpu"))
    assert [batches.batch(step)[0, 0].item() for step in range(5)] == [1, 2, 1, 2, 1]
    batches.close()
    assert batches.batch(9)[0, 0].item() == 1


class Epochs:
    """Yields other batches in each epoch, as a stream may; nothing after the last one."""

    def __init__(self, *sizes: tuple[int, ...]) -> None:
        self._epochs = iter(sizes)

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.full((size, 2), 0.1 * size) for size in next(self._epochs, ())])


@pytest.mark.parametrize("first", [(3,), ()], ids=["short", "empty"])
def test_one_epoch_may_have_no_whole_batch(first: tuple[int, ...]) -> None:
    batches = LoaderBatches(Epochs(first, (4,), (4, 3), (4,)), 4, torch.device("cpu"))
    for step in range(3):
        assert batches.batch(step).shape == (4, 2)
    short_again = LoaderBatches(Epochs((4, 3), (3, 4)), 4, torch.device("cpu"))
    assert len(short_again.batch(0)) == 4
    with pytest.raises(ConfigError, match="yields batches of 3, expected 4"):
        short_again.batch(1)


def test_unusable_reals_are_refused(few_images: ImageSet, tmp_path: Path) -> None:
    def refused(batches: Any, message: str, **changes: Any) -> None:
        settings = OWN_NETS | {"n_dis": 1} | changes
        netG, netD = torch.nn.Linear(8, 2), torch.nn.Linear(2, 1)
        opts = [torch.optim.SGD(net.parameters(), 0.1) for net in (netG, netD)]
        with pytest.raises(ConfigError, match=message):
            Trainer(netG, netD, *opts, batches, outdir=tmp_path, display=silent(), **settings).train()

    refused(3, "have a method batch\\(step\\), or be a DataLoader; got int")
    refused([torch.zeros(5, 2)], "yields batches of 5, expected 4: config.batch_size")
    refused([torch.zeros(3, 2)], "yields batches of 3, expected 4: config.batch_size")
    refused(Endless(torch.zeros(3, 2)), "yields batches of 3, expected 4: config.batch_size")
    refused([], "the loader yields nothing")
    refused(
        [torch.zeros(4, 2, dtype=torch.uint8)],
        r"must yield floating-point images in \[-1, 1\], got torch.uint8",
    )
    refused([[1, 2]], "must yield floating-point images .* got int")
    refused(
        [torch.zeros(4, 2)],
        "eval.every is set, but no evaluator was given.*ImageEvaluator",
        **{"eval.every": 1},
    )


@pytest.mark.parametrize("flip", [False, True])
def test_images_have_the_order_and_the_flips_that_the_run_asks_for(flip: bool) -> None:
    images = torch.randint(0, 256, (31, 3, 4, 5), dtype=torch.uint8)
    data = ImageSet("noise", images, torch.zeros(31, dtype=torch.int64), ("all",))
    config = TrainConfig(batch_size=6, seed=4, flip=flip)
    for rank in (0, 1):
        found = as_batches(data, config, torch.device("cpu"), Ranks(rank, 2))
        expected, mirrored = (
            TrainSampler(data, 3, seed=4, flip=flips, rank=rank, world_size=2) for flips in (flip, not flip)
        )
        for step in (1, 6):  # the second is of another epoch
            assert torch.equal(found.batch(step), expected.batch(step))
        assert not torch.equal(expected.batch(1), mirrored.batch(1))


def test_a_distributed_sampler_gets_a_new_order_each_epoch() -> None:
    """torch's shuffles by (seed, epoch), and somebody has to tell it the epoch."""
    rows = torch.arange(8.0).view(8, 1)
    sampler = DistributedSampler(rows, num_replicas=2, rank=0, seed=3)  # type: ignore[arg-type]
    loader = DataLoader(rows, batch_size=4, sampler=sampler)  # type: ignore[arg-type]
    batches = LoaderBatches(loader, 4, torch.device("cpu"))
    seen = [tuple(batches.batch(step).flatten().tolist()) for step in range(4)]
    assert len(set(seen)) == 4
    expected = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        expected.append(tuple(float(i) for i in sampler))
    assert seen == expected


def test_a_generator_that_has_ended() -> None:
    batches = LoaderBatches((torch.ones(4, 2) for _ in range(2)), 4, torch.device("cpu"))
    assert [len(batches.batch(step)) for step in range(2)] == [4, 4]
    with pytest.raises(
        ConfigError, match=r"the generator that was given as batches has ended .* give a DataLoader"
    ):
        batches.batch(2)
    with pytest.raises(ConfigError, match="the loader yields nothing"):
        LoaderBatches([], 4, torch.device("cpu")).batch(0)


def test_no_batch_of_a_loader_is_spent_on_a_picture(few_images: ImageSet, tmp_path: Path) -> None:
    """Rank 0 alone draws it: another batch there, and its loader would be ahead of those of the other ranks."""
    taken: list[Tensor] = []

    class Counted:
        def __iter__(self) -> Iterator[Tensor]:
            for part in (few_images.images.float() / 127.5 - 1).split(4):
                taken.append(part)
                yield part

    netG, netD = nets.SNGANGenerator(32, ngf=4, nz=8), nets.SNGANDiscriminator(32, ndf=4)
    opts = [torch.optim.Adam(net.parameters(), 2e-4) for net in (netG, netD)]
    settings = OWN_NETS | {"steps": 2, "n_dis": 1, "samples": 12}
    Trainer(netG, netD, *opts, Counted(), outdir=tmp_path, display=silent(), **settings).train()
    assert len(taken) == 2, "one of each D step"
