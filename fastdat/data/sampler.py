"""Training batches from a set of uint8 images, which lies on the device or is gathered ahead by a thread.

Batch ``step`` depends on (seed, step, rank) alone, so a resumed run asks for its next step and replays nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from fastdat.data.image_set import ImageSet

_ORDER, _FLIP = 0, 1  # the random streams of an epoch
_MEMORY_SHARE = 1 / 3  # of a GPU's free memory that the copies of a resident set may take
_BATCHES_AHEAD = 3  # that the thread keeps ready
_EPOCHS_KEPT = 2  # the thread may be one epoch ahead
_FLIPS_AT_ONCE = 1 << 16  # bounds the memory that drawing them needs


class TrainSampler:
    """Draws without replacement: each epoch is a new permutation of the set, without its incomplete last batch.

    All ranks share one permutation, and each takes its own part of every global batch. N ranks with b samples therefore
    see together what one rank with N * b samples sees, flips included. CPU and CUDA see the same images.

    Args:
        data: the images.
        batch_size: samples per batch on this rank.
        seed: seed of order and flips.
        flip: mirror each sample left to right with probability 1/2.
        device: device of the batches.
        memory_format: memory format of the batches.
        rank: number of this process among those that train together.
        world_size: number of these processes.
        resident: True moves the set to ``device`` once, as uint8. With False a thread gathers the next batches in host
            memory (pinned for a GPU) while the device works. None chooses True on the CPU, and on a GPU where
            :func:`lies_on_gpu` says so.

    Raises:
        ValueError: the global batch is larger than the set, or ``rank`` is outside ``range(world_size)``.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        *,
        seed: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
        rank: int = 0,
        world_size: int = 1,
        resident: bool | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in range({world_size}), the world size; got {rank}")
        if not 1 <= batch_size * world_size <= len(data):
            raise ValueError(
                f"{data.name} has {len(data)} images; got batch_size={batch_size} on {world_size} rank(s), "
                f"{batch_size * world_size} per batch. Choose from 1 to {len(data) // world_size}."
            )
        self._data = data
        self.batch_size = batch_size
        self.batches_per_epoch = len(data) // (batch_size * world_size)
        self._device = torch.device(device)
        if resident is None:
            free = _free(self._device)
            resident = free is None or lies_on_gpu(data.images.numel(), free, world_size)
        self.resident = resident
        self._images = data.images.to(self._device) if self.resident else data.images
        self._labels = data.labels.to(self._images.device)
        self._seed = seed
        self._flip = flip
        self._memory_format = memory_format
        self._rank = rank
        self._world_size = world_size
        # Order and flips of the latest epochs. They follow from the step, so checkpoints need not save them.
        self._epochs: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._lock = threading.Lock()
        self._ahead: _Ahead | None = None if self.resident else _Ahead(self._gathered)

    def batch(self, step: int) -> Tensor:
        """Batch ``step`` (from 0): (batch_size, C, H, W) float32 in [-1, 1]."""
        return self.made(*self.fetched(step))

    def fetched(self, step: int) -> tuple[Tensor, Tensor]:
        """What :meth:`made` makes batch ``step`` from, on the device: the rows (batch_size,) int64 of a resident set,
        or else the uint8 images themselves (batch_size, C, H, W); and which are mirrored, (batch_size,) bool."""
        if self._ahead is None:
            return self._rows(step)
        images, flips = self._ahead.take(step)
        return images.to(self._device, non_blocking=True), flips.to(self._device, non_blocking=True)

    def made(self, source: Tensor, flips: Tensor) -> Tensor:
        """The batch of what :meth:`fetched` returned; computes on tensors of fixed shapes only."""
        images = self._images.index_select(0, source) if self._ahead is None else source
        if self._flip:
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        # One pass widens, one scales: memory traffic is what a batch costs (bench/bench_data.py).
        batch = torch.sub(images, 127.5).mul_(1 / 127.5)
        return batch.contiguous(memory_format=self._memory_format)

    def labels(self, step: int) -> Tensor:
        """Labels of batch ``step``: (batch_size,) int64."""
        rows, _ = self._rows(step)
        labels = self._labels.index_select(0, rows)
        if labels.device != self._device and self._device.type == "cuda":
            labels = labels.pin_memory()  # otherwise the copy waits for all work queued on the GPU
        return labels.to(self._device, non_blocking=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, which labels index."""
        return self._data.classes

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the images."""
        return self._data.fingerprint

    def close(self) -> None:
        """Stop the thread, if there is one."""
        if self._ahead is not None:
            self._ahead.close()

    def _gathered(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch's uint8 images and flips in host memory, which is pinned if they go to a GPU from there."""
        rows, flips = self._rows(step)
        if self._device.type != "cuda":
            return self._images.index_select(0, rows), flips
        pinned = torch.empty((len(rows), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        return torch.index_select(self._images, 0, rows, out=pinned), flips.pin_memory()

    def _rows(self, step: int) -> tuple[Tensor, Tensor]:
        """Indices and flips of the samples of batch ``step``."""
        epoch, index = divmod(step, self.batches_per_epoch)
        order, flips = self._epoch(epoch)
        start = (index * self._world_size + self._rank) * self.batch_size
        return order[start : start + self.batch_size].long(), flips[start : start + self.batch_size]

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Order and flips of ``epoch`` on the set's device, made once per epoch."""
        with self._lock:  # the thread calls this too
            if epoch not in self._epochs:
                count, where = len(self._images), self._images.device
                # Drawn on the CPU, so that every device gets the same numbers.
                order = _order(count, _generator(self._seed, epoch, _ORDER)).to(where)
                flips = _flips(count, _generator(self._seed, epoch, _FLIP)).to(where)
                # A GPU keeps the type of rows: casting a batch of them there would cost a launch at each step.
                self._epochs[epoch] = order.long() if where.type == "cuda" else order, flips
                while len(self._epochs) > _EPOCHS_KEPT:
                    self._epochs.popitem(last=False)
            return self._epochs[epoch]


class _Ahead:
    """Makes batches in a thread. Any step may be asked for; the thread then prepares the steps after it."""

    def __init__(self, make: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastdat-batches")
        self._ready: dict[int, Future[tuple[Tensor, Tensor]]] = {}

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        wanted = range(step, step + _BATCHES_AHEAD + 1)
        for old in [s for s in self._ready if s not in wanted]:
            self._ready.pop(old).cancel()
        for s in wanted:
            if s not in self._ready:
                self._ready[s] = self._thread.submit(self._make, s)
        return self._ready[step].result()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def lies_on_gpu(image_bytes: int, free: float, copies: int = 1) -> bool:
    """Whether a set lies on each of ``copies`` GPUs as a whole: its copies together take a third of one GPU at most.

    Each of N GPUs uses an N-th of its copy in an epoch. So where several train together, a large set stays in the
    host's memory, and a thread of each rank gathers its rows.

    Args:
        image_bytes: of the set.
        free: bytes of memory that are free on a GPU.
        copies: GPUs that train together.
    """
    return copies * image_bytes <= _MEMORY_SHARE * free


def _free(device: torch.device) -> int | None:
    """Bytes that are free on a GPU; None on a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _order(count: int, generator: torch.Generator) -> Tensor:
    """A permutation (count,): int32 where that suffices. It is the same one as in int64, in half the memory."""
    return torch.randperm(count, generator=generator, dtype=torch.int32 if count < 1 << 31 else torch.int64)


def _flips(count: int, generator: torch.Generator) -> Tensor:
    """Which of ``count`` samples are mirrored: (count,) bool. They are the same however many are drawn at once."""
    flips = torch.empty(count, dtype=torch.bool)
    for part in flips.split(_FLIPS_AT_ONCE):
        torch.lt(torch.rand(len(part), generator=generator), 0.5, out=part)
    return flips


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """A generator that is independent for each epoch and stream."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
