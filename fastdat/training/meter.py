"""Means of per-step numbers, summed on the device; only reading them waits for the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class _Sum:
    """The numbers of all steps with the same names: their sum (names,), and of how many steps it is."""

    sum: Tensor
    count: int


class Meter:
    """Running mean of named 0-dimensional tensors since the last :meth:`clear`.

    Steps need not have the same names, as where a regularizer is part of one step in four: each name's mean is over the
    steps that had it. NaN and infinity stay in the sum: a finite mean proves that every step it covers was finite.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], _Sum] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one step."""
        names = tuple(values)
        now = torch.stack([value.detach().float() for value in values.values()])
        known = self._sums.get(names)
        if known is None:
            self._sums[names] = _Sum(now, 1)
        else:
            known.sum += now
            known.count += 1

    def state(self) -> list[dict[str, Any]]:
        """The sums so far, for a checkpoint: one for each set of names."""
        return [{"names": list(names), "sum": of.sum, "count": of.count} for names, of in self._sums.items()]

    def load(self, state: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Continue from what :meth:`state` returned."""
        self._sums = {tuple(of["names"]): _Sum(of["sum"].to(device, copy=True), of["count"]) for of in state}

    def means(self) -> dict[str, float]:
        """The means so far; empty if nothing was added. Waits for the device."""
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, of in self._sums.items():
            for name, value in zip(names, of.sum.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + of.count
        return {name: total / counts[name] for name, total in totals.items()}

    def clear(self) -> None:
        """Start again from zero."""
        self._sums = {}
