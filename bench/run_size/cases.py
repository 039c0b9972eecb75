"""The trainings whose time and memory are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One training: a preset with changes."""

    preset: str
    batch: int
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        changed = "".join(f" {key.rpartition('.')[2]}={value}" for key, value in self.changes.items())
        return f"{self.preset} batch={self.batch}{changed}"


CIFAR10, LSUN = "sngan-dat-cifar10", "sngan-dat-lsun-bedroom"
ON_GPU = (
    Case(CIFAR10, 64),
    Case(CIFAR10, 512),
    Case(CIFAR10, 2048),
    Case(LSUN, 64),
    Case(LSUN, 256),
    Case(LSUN, 1024),
    Case(LSUN, 2048, {"microbatch": 256}),
    Case(LSUN, 256, {"dat.second_order": True}),
    Case(LSUN, 64, {"cuda_graph": False}),  # as on several GPUs
)
_THIN = {"ngf": 32, "ndf": 32}
ON_CPU = (
    *(Case(CIFAR10, batch, _THIN) for batch in (16, 64, 128)),
    *(Case(LSUN, batch, _THIN) for batch in (8, 32)),
    Case(LSUN, 64, _THIN | {"microbatch": 16}),
    Case(CIFAR10, 32, _THIN | {"dat.second_order": True}),
)
