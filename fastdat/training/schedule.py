"""The learning rate's course over the G steps."""

from __future__ import annotations

from torch.optim import Optimizer


class LearningRate:
    """Scales the rates the optimizers came with as G steps are done.

    ``"linear"``: the step after ``done`` G steps has ``lr (1 - done / steps)``, as in the baselines (Table I), so
    the first has ``lr`` and the last ``lr / steps``. ``"none"``: constant.
    """

    def __init__(self, optimizers: list[Optimizer], decay: str, steps: int) -> None:
        self._groups = [
            (group, float(group["lr"])) for optimizer in optimizers for group in optimizer.param_groups
        ]
        self._decay = decay
        self._steps = steps

    def set(self, done: int) -> None:
        """Set every group's rate for the step that follows ``done`` G steps."""
        for group, lr in self._groups:
            group["lr"] = lr * (1 - done / self._steps) if self._decay == "linear" else lr
