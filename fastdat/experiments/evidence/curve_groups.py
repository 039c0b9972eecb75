"""The arms of a study of curves: groups of arms, each with the arm that the others of the group are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastdat.experiments.images.image_study import Arm


@dataclass(frozen=True)
class Group:
    """Arms that differ in one thing, and are compared with one of them.

    Args:
        arms: their names differ from those of all other groups.
        base: the name of the arm that the others are compared with. It may be missing from ``arms``, and then nothing
            is compared.
        name: what the arms have in common: ``"LR 2e-4"``; empty where a study has one group.
    """

    arms: tuple[Arm, ...]
    base: str
    name: str = ""

    @property
    def others(self) -> tuple[Arm, ...]:
        """All arms but the base."""
        return tuple(arm for arm in self.arms if arm.name != self.base)

    def only(self, wanted: Sequence[str]) -> Group | None:
        """The group without the arms that are not ``wanted``, by their names; None if none is left."""
        left = tuple(arm for arm in self.arms if arm.name in wanted)
        return replace(self, arms=left) if left else None

    def label(self, arm: str) -> str:
        """The name of one of its arms beside the group's own: ``"LR 2e-4, DAT"`` is ``"DAT"`` in its group."""
        return arm.removeprefix(f"{self.name}, ") if self.name else arm
