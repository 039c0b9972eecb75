"""Means of per-step numbers, kept on the device: nothing waits for it until they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Running mean of named 0-dimensional tensors since the last :meth:`clear`.

    NaN and infinity stay in the sum, so a reading that is finite vouches for every step it covers.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values; every call since the last :meth:`clear` must have the same names."""
        now = torch.stack([value.detach().float() for value in values.values()])
        if self._sum is None:
            self._names, self._sum = tuple(values), now
        else:
            self._sum += now
        self._count += 1

    def state(self) -> dict[str, Any]:
        """What has been added so far, for a checkpoint."""
        return {"names": list(self._names), "sum": self._sum, "count": self._count}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`state` gave."""
        self._names, self._count = tuple(state["names"]), state["count"]
        self._sum = None if state["sum"] is None else state["sum"].to(device)

    def means(self) -> dict[str, float]:
        """The means so far; empty where nothing was added. This is where the device is waited for."""
        if self._sum is None:
            return {}
        return dict(zip(self._names, (self._sum.double() / self._count).tolist(), strict=True))

    def clear(self) -> None:
        """Start anew."""
        self._sum, self._count = None, 0
