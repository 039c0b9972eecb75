"""A running average of G's weights; its samples vary less from step to step than those of G."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdat.nets.deep_copy import deep_copy


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
        self.net = deep_copy(net).requires_grad_(False)
        self._decay = decay
        self._parts: dict[torch.dtype, Tensor] | None = None
        self._averages: list[Tensor] = list(self.net.parameters())
        self._weights: list[Tensor] = list(net.parameters())
        buffers = list(zip(self.net.buffers(), net.buffers(), strict=True))
        kinds = dict.fromkeys(buffer.dtype for _, buffer in buffers)
        # One launch copies many tensors of one type; of several types it would be one launch each.
        self._buffers = [[pair for pair in buffers if pair[1].dtype == kind] for kind in kinds]

    @property
    def decay(self) -> float:
        return self._decay

    @decay.setter
    def decay(self, decay: float) -> None:
        self._decay = decay
        for part in (self._parts or {}).values():
            part.fill_(1 - decay)

    def hold_decay_in_tensors(self) -> None:
        """Let :meth:`update` read the decay from the device: a captured graph then sees a decay that is set later."""
        self._parts = {w.dtype: w.new_tensor(1 - self._decay) for w in self._weights}

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights to the average."""
        if self._parts is None:
            torch._foreach_lerp_(self._averages, self._weights, 1 - self._decay)
        else:
            torch._foreach_lerp_(self._averages, self._weights, [self._parts[w.dtype] for w in self._weights])
        for pairs in self._buffers:
            torch._foreach_copy_([copied for copied, _ in pairs], [buffer for _, buffer in pairs])
