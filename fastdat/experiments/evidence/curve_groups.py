"""The arms of a study of curves: groups of arms, each with the arm that the others of the group are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastdat.experiments.images.image_study import Arm


@dataclass(frozen=True)
class Group:
    """Arms that differ in one thing, and are compared with the first of them.

    Args:
        arms: the first one is the base; their names differ from those of all other groups.
        name: what the arms have in common: ``"LR 2e-4"``; empty where a study has one group.
    """

    arms: tuple[Arm, ...]
    name: str = ""

    @property
    def base(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    def only(self, wanted: Sequence[str]) -> Group | None:
        """The group without the arms that are not ``wanted``, by their names; None if none is left."""
        left = tuple(arm for arm in self.arms if arm.name in wanted)
        return Group(left, self.name) if left else None

    def label(self, arm: str) -> str:
        """The name of one of its arms beside the group's own: ``"LR 2e-4, DAT"`` is ``"DAT"`` in its group."""
        return arm.removeprefix(f"{self.name}, ") if self.name else arm
