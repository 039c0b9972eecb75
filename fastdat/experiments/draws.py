"""The random numbers of an ensemble: for every member a function of its seed alone.

Each is drawn on the CPU and then moved, so devices see the same numbers. All mixtures and all arms share them: a
comparison of two arms is paired, and no member's numbers depend on which others are trained beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdat.data.mixture import Mixture

#: Streams of a seed: initial weights, training, evaluation.
WEIGHTS, TRAINING, EVALUATION = 0, 1, 2
#: Iterations drawn at once. Part of the results: another value deals the same numbers out in another order.
CHUNK = 100


class Batch(NamedTuple):
    """What one iteration consumes. Members are numbered mixture by mixture, seed by seed within one."""

    xr: Tensor
    """Real points (members, m, 2)."""
    z_d: Tensor
    """z of the D step's fakes (members, m, nz)."""
    z_g: Tensor
    """z of the G step (members, m, nz), drawn anew (Algorithm 1, line 12)."""


def generator(seed: int, stream: int) -> torch.Generator:
    """A generator on the CPU for ``stream`` of ``seed``."""
    key = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(key[0]))


def batches(
    mixtures: Sequence[Mixture], seeds: Sequence[int], size: int, nz: int, like: Tensor
) -> Iterator[Batch]:
    """Batches of ``size`` points without end, with the dtype and device of ``like``."""
    generators = [generator(seed, TRAINING) for seed in seeds]
    while True:
        chunks = [_chunk(mixtures, size, nz, g) for g in generators]
        # Each part (mixtures, CHUNK, m, ...) a seed -> (CHUNK, mixtures * seeds, m, ...)
        parts = [
            torch.stack(part, dim=1).flatten(0, 1).to(like).transpose(0, 1)
            for part in zip(*chunks, strict=True)
        ]
        for i in range(CHUNK):
            yield Batch(*(part[i].contiguous() for part in parts))


def latents(mixtures: Sequence[Mixture], seeds: Sequence[int], count: int, nz: int, like: Tensor) -> Tensor:
    """z for evaluation (members, count, nz), the same at every call."""
    z = torch.stack([torch.randn(count, nz, generator=generator(seed, EVALUATION)) for seed in seeds])
    return torch.cat([z] * len(mixtures)).to(like)


def _chunk(
    mixtures: Sequence[Mixture], size: int, nz: int, g: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """CHUNK iterations of one seed: xr, z_d, z_g, each (mixtures, CHUNK, m, ...)."""
    u = torch.rand(CHUNK, size, generator=g)
    noise = torch.randn(CHUNK, size, 2, generator=g)
    z = torch.randn(2, CHUNK, size, nz, generator=g)
    xr = torch.stack([mixture.place(u, noise) for mixture in mixtures])
    z_d, z_g = z.unsqueeze(1).expand(-1, len(mixtures), -1, -1, -1)
    return xr, z_d, z_g
