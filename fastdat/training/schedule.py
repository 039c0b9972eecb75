"""The decay of the learning rates over the G steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from fastdat.training.cosine import set_number


class LearningRate:
    """Scales the initial rates of the optimizers.

    ``"linear"``: the iteration after ``done`` G steps has the rate ``lr (1 - done / steps)``, as in the baselines
    (Table I): the first one ``lr``, the last one ``lr / steps``. ``"none"``: constant.

    Args:
        optimizers: their rates now are the initial ones.
        decay: ``"linear"`` or ``"none"``.
        steps: G steps in total.
    """

    def __init__(self, optimizers: list[Optimizer], decay: str, steps: int) -> None:
        self._rates = [
            (optimizer, [float(g["lr"]) for g in optimizer.param_groups]) for optimizer in optimizers
        ]
        self._decay = decay
        self._steps = steps

    def set(self, done: int) -> None:
        """Set the rate of every group for the iteration after ``done`` G steps."""
        for group, lr in self._groups():
            set_number(group, "lr", lr * (1 - done / self._steps) if self._decay == "linear" else lr)

    def put_back(self) -> None:
        """Give every group its initial rate again."""
        for group, lr in self._groups():
            set_number(group, "lr", lr)

    def _groups(self) -> Iterator[tuple[dict[str, Any], float]]:
        """Each group with its initial rate; looked up each time, since loading a state makes new groups."""
        for optimizer, rates in self._rates:
            yield from zip(optimizer.param_groups, rates, strict=True)


def hold_rates_in_tensors(optimizers: list[Optimizer]) -> None:
    """Let fused optimizers read their rates from the device: a captured graph then sees a rate that is set later.

    Others would wait for the device in each step, and keep their numbers.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if group.get("fused") and not isinstance(group["lr"], torch.Tensor):
                device = group["params"][0].device
                # The fused step reads float32 on a GPU, and any width on the CPU.
                dtype = torch.float64 if device.type == "cpu" else torch.float32
                group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=device)
