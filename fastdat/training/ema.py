"""A running average of G's weights; its samples vary less from step to step than those of G."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """``average = decay * average + (1 - decay) * weights`` after each step; buffers are copied.

    Not ``torch.optim.swa_utils.AveragedModel``: that copies the net in its first update instead of averaging, and its
    checkpoints have other keys.

    Args:
        net: the net to average; the average starts as a copy of it.
        decay: in [0, 1).

    Attributes:
        net: the average.
        decay: of the next update; may be set.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay = decay
        self._averages: list[Tensor] = list(self.net.parameters())
        self._weights: list[Tensor] = list(net.parameters())
        self._copies, self._buffers = list(self.net.buffers()), list(net.buffers())

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights to the average."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self.decay)
        if self._copies:
            torch._foreach_copy_(self._copies, self._buffers)
