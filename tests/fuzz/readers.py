"""All readers that are fuzzed."""

from __future__ import annotations

from tests.fuzz import data_targets, run_targets, store_targets
from tests.fuzz.target import Target


def all_targets() -> tuple[Target, ...]:
    """Every reader of files that somebody else may have made."""
    return (*data_targets.TARGETS, *store_targets.TARGETS, *run_targets.TARGETS)
