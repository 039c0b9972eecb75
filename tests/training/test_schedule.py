"""The decay of learning rates."""

from __future__ import annotations

import pytest
import torch

from fastdat.training.schedule import LearningRate


def test_linear_decay_keeps_the_ratio_of_the_rates() -> None:
    nets = [torch.nn.Linear(1, 1) for _ in range(2)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(net.parameters(), lr=lr) for net, lr in zip(nets, (1.0, 4.0), strict=True)
    ]
    rate = LearningRate(optimizers, "linear", 10)
    seen = []
    for done in (0, 5, 9):
        rate.set(done)
        seen.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
    assert seen == [pytest.approx([1, 4]), pytest.approx([0.5, 2]), pytest.approx([0.1, 0.4])]


def test_without_decay_the_rate_is_constant() -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.3)
    rate = LearningRate([optimizer], "none", 10)
    rate.set(9)
    assert optimizer.param_groups[0]["lr"] == 0.3
