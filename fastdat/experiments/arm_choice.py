"""Which arms of an experiment ``--only`` chooses: one rule for all experiments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fastdat.util.errors import ConfigError


def chooses(part: str, name: str, names: Collection[str]) -> bool:
    """Whether the text ``part`` chooses ``name``, one of ``names``.

    A text that is a whole name chooses this name alone, ``"eps 1"`` and not ``"eps 1.4"``; any other text chooses the
    names that contain it.
    """
    return name == part if part in names else part in name


def chosen_names(
    names: Collection[str], only: Sequence[str], rule: Callable[[str, str], bool] | None = None
) -> tuple[str, ...]:
    """The names that one of the texts in ``only`` chooses, in their order; all names if it is empty.

    Args:
        names: of all arms.
        only: of ``Options.only``.
        rule: (text, name) -> whether the text chooses the name; None: :func:`chooses`.

    Raises:
        ConfigError: no arm is left.
    """

    def is_chosen(name: str) -> bool:
        return any(rule(part, name) if rule else chooses(part, name, names) for part in only)

    left = tuple(name for name in names if not only or is_chosen(name))
    if not left:
        raise ConfigError(f"--only {' --only '.join(only)} leaves no arm. The arms are: {'; '.join(names)}")
    return left


def by_loss(losses: Collection[str], arms: Collection[str]) -> Callable[[str, str], bool]:
    """The rule for names ``"LOSS: ARM"``.

    ``"wgan"`` is all arms of this loss, which has to be given whole, ``"DAT"`` an arm with all losses, and
    ``"wgan: DAT"`` one with one.
    """

    def rule(part: str, name: str) -> bool:
        loss, arm = name.split(": ")
        of_loss, colon, of_arm = part.partition(":")
        if not colon:
            return part == loss if part in losses else chooses(part, arm, arms)
        return of_loss == loss and chooses(of_arm.strip(), arm, arms)

    return rule
