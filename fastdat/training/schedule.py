"""The learning rate's course over the G steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class LearningRate:
    """Scales the rates the optimizers came with as G steps are done.

    ``"linear"``: the step after ``done`` G steps has ``lr (1 - done / steps)``, as in the baselines (Table I), so
    the first has ``lr`` and the last ``lr / steps``. ``"none"``: constant.
    """

    def __init__(self, optimizers: list[Optimizer], decay: str, steps: int) -> None:
        self._rates = [
            (optimizer, [float(g["lr"]) for g in optimizer.param_groups]) for optimizer in optimizers
        ]
        self._decay = decay
        self._steps = steps

    def set(self, done: int) -> None:
        """Set every group's rate for the step that follows ``done`` G steps."""
        for group, lr in self._groups():
            now = lr * (1 - done / self._steps) if self._decay == "linear" else lr
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(now)  # the optimizer may hold on to the tensor, in a captured graph say
            else:
                group["lr"] = now

    def _groups(self) -> Iterator[tuple[dict[str, Any], float]]:
        """Each group with the rate it came with; looked up anew, since loading a state makes new groups."""
        for optimizer, rates in self._rates:
            yield from zip(optimizer.param_groups, rates, strict=True)
