"""Means of per-step numbers, summed on the device; only reading them waits for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Running mean of named 0-dimensional tensors since the last :meth:`clear`.

    NaN and infinity stay in the sum: a finite mean proves that every step it covers was finite.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one step; all calls between two :meth:`clear` must have the same names."""
        now = torch.stack([value.detach().float() for value in values.values()])
        if self._sum is None:
            self._names, self._sum = tuple(values), now
        else:
            self._sum += now
        self._count += 1

    def state(self) -> dict[str, Any]:
        """The sum so far, for a checkpoint."""
        return {"names": list(self._names), "sum": self._sum, "count": self._count}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from what :meth:`state` returned."""
        self._names, self._count = tuple(state["names"]), state["count"]
        self._sum = None if state["sum"] is None else state["sum"].to(device)

    def means(self) -> dict[str, float]:
        """The means so far; empty if nothing was added. Waits for the device."""
        if self._sum is None:
            return {}
        return dict(zip(self._names, (self._sum.double() / self._count).tolist(), strict=True))

    def clear(self) -> None:
        """Start again from zero."""
        self._sum, self._count = None, 0
