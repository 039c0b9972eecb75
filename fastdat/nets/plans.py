"""Shapes of the SNGAN family's networks, one plan per resolution. A new resolution needs only a new plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class GeneratorPlan:
    """Shape of a generator: a first map of ``size`` x ``size`` pixels, then one up-sampling block per further divisor.

    Args:
        ngf: default width.
        size: height and width of the first map.
        divisors: the maps have ``ngf / divisors[i]`` channels.
    """

    ngf: int
    size: int
    divisors: tuple[int, ...]


@dataclass(frozen=True)
class DiscriminatorPlan:
    """Shape of a discriminator.

    Args:
        ndf: default width.
        divisors: block i has ``ndf / divisors[i]`` output channels.
        down: whether block i halves the size.
    """

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

Plan = TypeVar("Plan")


def plan_for(resolution: int, plans: dict[int, Plan], net: str) -> Plan:
    """The plan of ``net`` for ``resolution``.

    Raises:
        ValueError: there is none.
    """
    if resolution not in plans:
        known = ", ".join(str(size) for size in sorted(plans))
        raise ValueError(f"{net} exists at resolution {known}; got resolution={resolution!r}")
    return plans[resolution]


def widths(name: str, full: int | None, default: int, divisors: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of each stage: the full width, which is ``default`` if ``full`` is None, over each of the divisors.

    Raises:
        ValueError: the full width is not a positive multiple of the largest divisor; the message calls it ``name``.
    """
    full = default if full is None else full
    if full < 1 or full % max(divisors):
        raise ValueError(f"{name} must be a positive multiple of {max(divisors)}; got {name}={full!r}")
    return tuple(full // divisor for divisor in divisors)


def require_positive(**sizes: int) -> None:
    """Check that every size is at least 1.

    Raises:
        ValueError: names the size that is not.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {name}={size!r}")
