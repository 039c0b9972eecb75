"""The content of checkpoints, of the structure that a run's have; and damage to their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdat.training import TrainConfig, checkpoint


def small_state(**changes: Any) -> dict[str, Any]:
    """After one update of two small nets; ``changes`` replace entries."""
    torch.manual_seed(3)
    return state_of(nn.Linear(2, 5), nn.Linear(5, 1)) | changes


def state_of(netG: nn.Module, netD: nn.Module) -> dict[str, Any]:
    """After 3 steps, with the moments of an update by Adam with random gradients."""
    optimizers = {
        name: torch.optim.Adam(net.parameters(), 0.1) for name, net in (("optG", netG), ("optD", netD))
    }
    for net, optimizer in zip((netG, netD), optimizers.values(), strict=True):
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    meter = {"names": ["loss"], "sum": torch.tensor([1.5]), "count": 2}
    return {
        "step": 3,
        "config": TrainConfig().recorded(),
        "netG": netG.state_dict(),
        "netD": netD.state_dict(),
        **{name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "optimizers": {
            name: checkpoint.optimizer_settings(optimizer) for name, optimizer in optimizers.items()
        },
        "data": None,
        "ema": None,
        "rng": checkpoint.rng_state(),
        "seconds": 1.25,
        "attempt": 0,
        "meters": {"d": [meter], "g": []},
        "regularizers": [{"real": torch.tensor(0.25)}, {}],
        "best": None,
        "unscored": False,
        "class_names": [],
    }


def flip(path: Path, position: int | None = None) -> Path:
    """Change one bit of a byte of ``path``, by default in its middle, in a file of its own: it may have two names."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.unlink()
    path.write_bytes(content)
    return path
