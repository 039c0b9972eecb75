"""An entry of equivalent.toml names a mutant that exists, with the lines that it has."""

from __future__ import annotations

from collections import defaultdict

from tests.mutants.equivalents import equivalents
from tests.mutants.places import mutants


def test_every_entry_is_a_mutant() -> None:
    of_file = defaultdict(dict)
    for file in {each.file for each in equivalents()}:
        of_file[file] = {mutant.id: mutant for mutant in mutants(file)}
    for each in equivalents():
        assert each.id in of_file[each.file], (
            f"{each} is gone: its line was edited; remove it, or see whether it holds"
        )
        assert of_file[each.file][each.id].change() == (each.old, each.new)


def test_every_entry_has_a_reason_and_stands_once() -> None:
    assert len({each.id for each in equivalents()}) == len(equivalents())
    assert all(len(each.reason.split()) >= 4 for each in equivalents())
