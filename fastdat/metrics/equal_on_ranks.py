"""What the processes of one evaluation must have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdat.util.errors import ConfigError
from fastdat.util.ranks import Ranks

_SHOWN = 12
"""Characters of a value that a message shows: the beginning of a digest suffices."""


def check_equal(ranks: Ranks, facts: Mapping[str, Any], hint: str) -> None:
    """Refuse ranks that differ: their parts would be put together to scores of nothing in particular.

    Args:
        ranks: the processes, each of which calls this.
        facts: what must be the same on all of them, by its name in messages; short values that can be pickled.
        hint: ends the message: what to do about it.

    Raises:
        ConfigError: on all ranks; names the first rank that differs from rank 0, and in what.
    """
    by_rank = ranks.all_of(dict(facts))
    for rank, theirs in enumerate(by_rank):
        differing = [name for name, value in by_rank[0].items() if theirs[name] != value]
        if differing:
            name = differing[0]
            there, first = (str(facts_of[name])[:_SHOWN] for facts_of in (theirs, by_rank[0]))
            raise ConfigError(f"{name} of rank {rank} is not that of rank 0: {there} and {first}. {hint}")
