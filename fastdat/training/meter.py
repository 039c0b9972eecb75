"""Means of per-step numbers, summed on the device; only reading them waits for the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdat.util.ranks import Ranks


class _Sum:
    """The numbers of all steps with the same names: their sum, and behind it of how many steps it is.

    It only changes in place and holds no Python number, so that a captured graph can go on adding to it.
    """

    def __init__(self, count_of_names: int, device: torch.device) -> None:
        self.sum = torch.zeros(count_of_names + 1, device=device)
        self._one = torch.ones((), device=device)

    def add(self, values: Iterable[Tensor]) -> None:
        self.sum += torch.stack([*values, self._one])


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
        wide = [value.detach().float() for value in values.values()]
        if names not in self._sums:
            self._sums[names] = _Sum(len(names), wide[0].device)
        self._sums[names].add(wide)

    def state(self) -> list[dict[str, Any]]:
        """The sums so far, for a checkpoint: one for each set of names."""
        return [
            {"names": list(names), "sum": of.sum[:-1].clone(), "count": count}
            for names, of in self._sums.items()
            if (count := int(of.sum[-1]))
        ]

    def load(self, state: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Continue, in place, from what :meth:`state` returned."""
        self.clear()
        for of in state:
            names = tuple(of["names"])
            found = self._sums.setdefault(names, _Sum(len(names), device))
            found.sum[:-1].copy_(of["sum"])
            found.sum[-1] = of["count"]

    def means(self) -> dict[str, float]:
        """The means so far; empty if nothing was added. Waits for the device."""
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, of in self._sums.items():
            *sums, count = of.sum.tolist()
            if not count:
                continue
            for name, value in zip(names, sums, strict=True):
                totals[name] = totals.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + int(count)
        return {name: total / counts[name] for name, total in totals.items()}

    def average(self, ranks: Ranks) -> None:
        """Replace the sums, in place, by their means over ``ranks``, whose steps had the same names."""
        ranks.average(of.sum for of in self._sums.values())

    def clear(self) -> None:
        """Start again from zero, in place."""
        for of in self._sums.values():
            of.sum.zero_()
