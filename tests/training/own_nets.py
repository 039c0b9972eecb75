"""A run of small nets, optimizers and reals that a user brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fastdat.data import ImageSet, TrainSampler
from fastdat.training import TrainConfig, Trainer
from tests.training.runs import silent


class Reals:
    """Answers by step and remembers which steps were asked for."""

    def __init__(self, data: ImageSet) -> None:
        self.sampler = TrainSampler(data, 4)
        self.asked: list[int] = []

    def batch(self, step: int) -> Tensor:
        self.asked.append(step)
        return self.sampler.batch(step)


def own_trainer(
    data: ImageSet, outdir: Path, config: TrainConfig, *, dropout: bool = False, **more: Any
) -> tuple[Trainer, Reals]:
    """Two small nets with what makes real ones hard: running statistics in G, power iterations in D; with ``dropout``
    also random numbers in D."""
    torch.manual_seed(0)
    pixels = 3 * 32 * 32
    G = nn.Sequential(nn.Linear(8, pixels), nn.BatchNorm1d(pixels), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
    D = nn.Sequential(
        nn.Flatten(), spectral_norm(nn.Linear(pixels, 8)), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)
    )
    if dropout:
        D.insert(1, nn.Dropout(0.5))
    optG = torch.optim.SGD(G.parameters(), lr=0.02)
    optD = torch.optim.SGD(D.parameters(), lr=0.01, momentum=0.5)
    reals = Reals(data)
    return Trainer(G, D, optG, optD, reals, config, outdir, display=silent(), **more), reals
