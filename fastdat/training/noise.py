"""Latent noise as a function of (seed, stream, step, rank), so that no generator's state needs saving."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Streams: z of the D steps' fakes, of the G steps, and of the fixed sample grid.
D_STEP, G_STEP, SAMPLES = 0, 1, 2


class Noise:
    """Draws z ~ N(0, I) on ``device``; equal arguments give equal z on the same kind of device."""

    def __init__(self, nz: int, *, seed: int, device: torch.device, rank: int = 0) -> None:
        self._nz = nz
        self._seed = seed
        self._rank = rank
        self._generator = torch.Generator(device)

    def draw(self, stream: int, step: int, count: int) -> Tensor:
        """(count, nz) float32."""
        key = np.random.SeedSequence([self._seed, stream, step, self._rank]).generate_state(1, np.uint64)
        self._generator.manual_seed(int(key[0]))
        return torch.randn(count, self._nz, generator=self._generator, device=self._generator.device)
