"""Shapes of the SNGAN family's networks: one row a resolution, so that a further resolution is a further row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class GeneratorPlan:
    """Shape of a generator: ``size`` x ``size`` x ``ngf / divisors[0]`` from z, then one up block a further divisor."""

    ngf: int
    size: int
    divisors: tuple[int, ...]


@dataclass(frozen=True)
class DiscriminatorPlan:
    """Shape of a discriminator: block i has ``ndf / divisors[i]`` channels; ``down[i]``: it halves the size."""

    ndf: int
    divisors: tuple[int, ...]
    down: tuple[bool, ...]


GENERATORS = {
    32: GeneratorPlan(ngf=256, size=4, divisors=(1, 1, 1, 1)),
    48: GeneratorPlan(ngf=512, size=6, divisors=(1, 2, 4, 8)),
    64: GeneratorPlan(ngf=1024, size=4, divisors=(1, 2, 4, 8, 16)),
    128: GeneratorPlan(ngf=1024, size=4, divisors=(1, 1, 2, 4, 8, 16)),
}
_FIVE_BLOCKS = DiscriminatorPlan(ndf=1024, divisors=(16, 8, 4, 2, 1), down=(True, True, True, True, False))
DISCRIMINATORS = {
    32: DiscriminatorPlan(ndf=128, divisors=(1, 1, 1, 1), down=(True, True, False, False)),
    48: _FIVE_BLOCKS,
    64: _FIVE_BLOCKS,
    128: DiscriminatorPlan(
        ndf=1024, divisors=(16, 8, 4, 2, 1, 1), down=(True, True, True, True, True, False)
    ),
}

Row = TypeVar("Row")


def row(table: dict[int, Row], net: str, resolution: int) -> Row:
    """The row of ``resolution``.

    Raises:
        ValueError: there is none.
    """
    if resolution not in table:
        known = ", ".join(str(size) for size in sorted(table))
        raise ValueError(f"{net} exists at resolution {known}; got resolution={resolution!r}")
    return table[resolution]


def widths(name: str, full: int | None, default: int, divisors: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of each stage for a full width of ``full`` (the paper's when None).

    Raises:
        ValueError: a width that the divisors do not divide.
    """
    full = default if full is None else full
    if full < 1 or full % max(divisors):
        raise ValueError(f"{name} must be a positive multiple of {max(divisors)}; got {name}={full!r}")
    return tuple(full // divisor for divisor in divisors)


def positive(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: naming it.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {name}={size!r}")
