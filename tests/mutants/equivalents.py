"""Mutants that no test can notice, each with its reason: tests/mutants/equivalent.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """`id` names the mutant, `old` and `new` its lines before and after, for the reader and for a test."""

    id: str
    file: str
    old: str
    new: str
    reason: str


@cache
def equivalents() -> tuple[Equivalent, ...]:
    return tuple(Equivalent(**each) for each in tomllib.loads(TABLE.read_text()).get("mutant", []))


def equivalent_ids() -> set[str]:
    return {each.id for each in equivalents()}
