"""Lists in messages."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 10


def some(names: Sequence[str]) -> str:
    """The first ten names, and ``...`` if there are more."""
    return ", ".join(names[:_MOST]) + " ..." * (len(names) > _MOST)
