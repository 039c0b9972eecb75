"""Random numbers as a function of (seed, stream, step, rank): no state of a generator has to be saved."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Streams of noise: for the fakes of D steps, for G steps, the sample grids, scores, ``fastdat sample``.
D_STEP, G_STEP, SAMPLES, EVALUATION, COMMAND = 0, 1, 2, 3, 4
#: And for the augmentation of reals and fakes in D steps, and of fakes in G steps.
AUGMENT_REAL, AUGMENT_FAKE, AUGMENT_G = 5, 6, 7
#: And for samples that a user's callbacks ask for.
CALLBACKS = 8
#: And for what regularizers draw in D steps.
REGULARIZERS = 9


class Noise:
    """Draws z ~ N(0, I), labels and uniform numbers on ``device``; equal arguments give equal draws on the same kind of
    device.

    Args:
        nz: length of z.
        seed: of all streams.
        device: where the draws are made.
        classes: number of classes; 0 for generators without labels.
        rank: of this process among those that train together.

    Attributes:
        attempt: part of the seed; raised by a rollback, to repeat the same steps with other noise.
    """

    attempt = 0

    def __init__(self, nz: int, *, seed: int, device: torch.device, classes: int = 0, rank: int = 0) -> None:
        self.nz, self.classes = nz, classes
        self._seed = seed
        self._rank = rank
        self._generator = torch.Generator(device)

    @property
    def device(self) -> torch.device:
        return self._generator.device

    def draw(self, stream: int, step: int, count: int) -> Tensor:
        """(count, nz) float32."""
        generator = self._seeded(stream, step, 0)
        return torch.randn(count, self.nz, generator=generator, device=generator.device)

    def labels(self, stream: int, step: int, count: int) -> tuple[Tensor, ...]:
        """Labels for a conditional G: ``((count,) int64,)``, uniform; ``()`` where there are no classes."""
        if not self.classes:
            return ()
        generator = self._seeded(stream, step, 1)
        return (torch.randint(self.classes, (count,), generator=generator, device=generator.device),)

    def uniform(self, stream: int, step: int, count: int, length: int) -> Tensor:
        """(count, length) float32 in [0, 1)."""
        generator = self._seeded(stream, step, 2)
        return torch.rand(count, length, generator=generator, device=generator.device)

    def generator(self, stream: int, step: int) -> torch.Generator:
        """A new generator on ``device``, for who draws by himself."""
        return torch.Generator(self.device).manual_seed(self._seed_of(stream, step, 3))

    def reseeded(self, seed: int) -> Noise:
        """Noise of the same shape from another seed, as on the first attempt."""
        return Noise(self.nz, seed=seed, device=self.device, classes=self.classes)

    def _seeded(self, stream: int, step: int, what: int) -> torch.Generator:
        return self._generator.manual_seed(self._seed_of(stream, step, what))

    def _seed_of(self, stream: int, step: int, what: int) -> int:
        key = [self._seed, stream, step, self._rank, what, self.attempt]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
