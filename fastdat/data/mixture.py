"""Mixtures of two-dimensional Gaussians: the nine of Fig. 3, balanced or imbalanced (Sec. IV), a ring, and a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Means {-1, 0, 1} x {-1, 0, 1}, column by column from the left: mode number 3 * column + row.
MEANS = tuple((float(x), float(y)) for x in (-1, 0, 1) for y in (-1, 0, 1))
#: Standard deviation along each axis. The paper prints 0.1 as the variance, but then modes 1 apart would overlap.
STD = 0.1


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with equal deviations.

    Args:
        name: its name in tables and files.
        probabilities: of the modes, in the order of ``means``.
        means: of the modes, (x, y) each.
        std: standard deviation along each axis.
        words: what it is, in a sentence: ``"nine Gaussians on the grid {-1, 0, 1} x {-1, 0, 1}"``.

    Raises:
        ValueError: there is no mean, ``std`` is not positive, or the probabilities are not as many positive numbers
            with sum 1.
    """

    name: str
    probabilities: tuple[float, ...]
    means: tuple[tuple[float, float], ...] = MEANS
    std: float = STD
    words: str = "nine Gaussians on the grid {-1, 0, 1} x {-1, 0, 1}"

    def __post_init__(self) -> None:
        p, count = self.probabilities, len(self.means)
        if not count or len(p) != count or min(p) <= 0 or not math.isclose(sum(p), 1.0, abs_tol=1e-9):
            raise ValueError(
                f"a mixture of {count} Gaussians needs {count or 'some'} positive probabilities with sum 1; got {p!r}"
            )
        if not (math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"a mixture needs a positive standard deviation; got {self.std!r}")

    @classmethod
    def by_column(cls, name: str, columns: tuple[float, float, float]) -> Mixture:
        """Those nine with these probabilities of their columns, from the left. The modes of a column share equally."""
        return cls(name, tuple(column / 3 for column in columns for _ in range(3)))

    @classmethod
    def uniform(cls, name: str, means: tuple[tuple[float, float], ...], std: float, words: str) -> Mixture:
        """A mixture whose modes are equally probable."""
        return cls(name, (1 / len(means),) * len(means), means, std, words)

    def place(self, u: Tensor, noise: Tensor) -> Tensor:
        """Points (..., 2) from random numbers, which are arguments so that several mixtures can share them.

        Args:
            u: (...), uniform in [0, 1); selects the mode.
            noise: (..., 2), from N(0, I).
        """
        edges = torch.tensor(self.probabilities, dtype=torch.float64).cumsum(0)[:-1].to(u)
        mode = torch.searchsorted(edges, u, right=True)
        return self.means_like(noise)[mode] + self.std * noise

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Points (count, 2), float32, on the CPU."""
        u = torch.rand(count, generator=generator)
        return self.place(u, torch.randn(count, 2, generator=generator))

    def means_like(self, x: Tensor) -> Tensor:
        """``means`` as (modes, 2), with the dtype and device of ``x``."""
        return torch.tensor(self.means, dtype=x.dtype, device=x.device)


BALANCED = Mixture.by_column("balanced", (1 / 3, 1 / 3, 1 / 3))
IMBALANCED = Mixture.by_column("imbalanced", (0.15, 0.05, 0.8))

# Not in the paper: usual tests of GANs, within the range of the nine Gaussians and narrower.
RING = Mixture.uniform(
    "ring",
    tuple((math.cos(math.tau * k / 8), math.sin(math.tau * k / 8)) for k in range(8)),
    0.05,
    "eight Gaussians on the unit circle",
)
GRID = Mixture.uniform(
    "grid",
    tuple((x / 2, y / 2) for x in range(-2, 3) for y in range(-2, 3)),
    0.05,
    "25 Gaussians on the grid {-1, -0.5, 0, 0.5, 1} x {-1, -0.5, 0, 0.5, 1}",
)

#: Mixtures by the names that configurations use.
MIXTURES = {"gaussians": BALANCED, "gaussians-imbalanced": IMBALANCED, "ring": RING, "grid": GRID}


class MixtureBatches:
    """Training batches of a mixture. The points of batch ``step`` depend on (seed, step, rank) alone.

    Args:
        mixture: what to draw from.
        batch_size: points per batch.
        seed: seed of the points.
        device: device of the batches.
        rank: number of this process among those that train together.
    """

    def __init__(
        self,
        mixture: Mixture,
        batch_size: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
    ) -> None:
        self._mixture, self._batch_size, self._device = mixture, batch_size, torch.device(device)
        self._seed, self._rank = seed, rank

    def batch(self, step: int) -> Tensor:
        """Points (batch_size, 2), float32."""
        state = np.random.SeedSequence([self._seed, step, self._rank]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        points = self._mixture.sample(self._batch_size, generator)
        if self._device.type == "cuda":
            points = points.pin_memory()  # otherwise the copy waits for all work queued on the GPU
        return points.to(self._device, non_blocking=True)
