"""Training batches from a set that is held, whole, as uint8 on the device.

Batch ``step`` is a function of (seed, step, rank) alone: a resumed run asks for its next step and replays nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastdat.data.images import ImageSet

_ORDER, _FLIP = 0, 1  # streams of random numbers, apart from each other at every epoch


class TrainSampler:
    """Draws without replacement: each epoch is a new permutation of the set, its incomplete last batch dropped.

    All ranks share one permutation, of which each takes its own part of every global batch, so N ranks with b samples
    see together what one rank with N * b sees, flips included; the same images on CPU and CUDA.

    Args:
        data: the set; moved to ``device`` once, as uint8.
        batch_size: samples a batch on this rank.
        seed: of order and flips.
        flip: mirror each sample left to right with probability 1/2.
        device, memory_format: of the batches.
        rank, world_size: this process's place among those that train together.

    Raises:
        ValueError: a global batch larger than the set, or a rank outside ``range(world_size)``.
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
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in range({world_size}), the world size; got {rank}")
        if not 1 <= batch_size * world_size <= len(data):
            raise ValueError(
                f"{data.name} has {len(data)} images; got batch_size={batch_size} on {world_size} rank(s), "
                f"{batch_size * world_size} a batch. Choose from 1 to {len(data) // world_size}."
            )
        self.batch_size = batch_size
        self.batches_per_epoch = len(data) // (batch_size * world_size)
        self._images = data.images.to(device)
        self._seed = seed
        self._flip = flip
        self._memory_format = memory_format
        self._rank = rank
        self._world_size = world_size
        self._epoch = -1  # the epoch whose order is at hand; derived from the step, so no state to save
        self._order = self._flips = torch.empty(0)

    def batch(self, step: int) -> Tensor:
        """Batch ``step`` (from 0): (batch_size, C, H, W) float32 in [-1, 1]."""
        epoch, index = divmod(step, self.batches_per_epoch)
        self._enter(epoch)
        start = (index * self._world_size + self._rank) * self.batch_size
        here = slice(start, start + self.batch_size)
        images = self._images.index_select(0, self._order[here])
        if self._flip:
            images = torch.where(self._flips[here, None, None, None], images.flip(-1), images)
        return images.to(torch.float32, memory_format=self._memory_format).div_(127.5).sub_(1.0)

    def _enter(self, epoch: int) -> None:
        """Put the order and flips of ``epoch`` on the device: one small copy an epoch, none a batch."""
        if epoch == self._epoch:
            return
        count, device = len(self._images), self._images.device
        # Drawn on the CPU, whose generator gives the same numbers whatever the device.
        self._order = torch.randperm(count, generator=_generator(self._seed, epoch, _ORDER)).to(device)
        self._flips = torch.rand(count, generator=_generator(self._seed, epoch, _FLIP)).lt(0.5).to(device)
        self._epoch = epoch


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
