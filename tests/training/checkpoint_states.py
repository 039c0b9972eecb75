"""The content of a small checkpoint, of the structure that a run's has."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastdat.training import TrainConfig, checkpoint


def small_state(**changes: Any) -> dict[str, Any]:
    """After 3 steps of two small nets, with Adam's state; ``changes`` replace entries."""
    torch.manual_seed(3)
    G, D = nn.Linear(2, 5), nn.Linear(5, 1)
    optimizers = {name: torch.optim.Adam(net.parameters(), 0.1) for name, net in (("optG", G), ("optD", D))}
    D(G(torch.randn(4, 2))).sum().backward()
    for optimizer in optimizers.values():
        optimizer.step()
    meter = {"names": ["loss"], "sum": torch.tensor([1.5]), "count": 2}
    return {
        "step": 3,
        "config": TrainConfig().recorded(),
        "netG": G.state_dict(),
        "netD": D.state_dict(),
        **{name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "optimizers": {
            name: checkpoint.optimizer_settings(optimizer) for name, optimizer in optimizers.items()
        },
        "data": None,
        "ema": None,
        "rng": checkpoint.rng_state(),
        "seconds": 1.25,
        "attempt": 0,
        "meters": {"d": meter, "g": {"names": [], "sum": None, "count": 0}},
        "best": None,
        "unscored": False,
    } | changes
