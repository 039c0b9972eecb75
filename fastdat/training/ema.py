"""A running average of G's weights, which gives smoother samples than G at any one step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """``average = decay * average + (1 - decay) * weights``, a step at a time; running statistics are copied.

    Args:
        net: what is averaged; the average starts as a copy of it.
        decay: in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self._decay = decay
        self._averages: list[Tensor] = list(self.net.parameters())
        self._weights: list[Tensor] = list(net.parameters())
        self._copies, self._buffers = list(self.net.buffers()), list(net.buffers())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._decay)
        if self._copies:
            torch._foreach_copy_(self._copies, self._buffers)
