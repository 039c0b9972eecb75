"""A sample follows from its seed and from the code around a place, not from what is written above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import places

CODE = '''\
"""Module."""
from __future__ import annotations
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    limit = 3 + 4


@dataclass(frozen=True)
class Box:
    side: int | None = 5

    @property
    def area(self) -> int | float:
        return self.side * self.side


def total(boxes: list[Box], *, sides: dict[str, int | None]) -> int | None:
    whole = 0
    for box, side in zip(boxes, sides, strict=True):
        whole += cast("int | None", box.area)
        whole += 7
    return whole
'''


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    (tmp_path / "box.py").write_text(CODE)
    return tmp_path


def changes() -> list[tuple[str, str]]:
    return [mutant.change() for mutant in places.mutants("box.py")]


def test_what_is_changed() -> None:
    assert sorted(changes()) == sorted(
        [
            ("@property", ""),
            ("side: int | None = 5", "side: int | None = 6"),
            ("side: int | None = 5", "side: int | None = 4"),
            ("return self.side * self.side", "return self.side / self.side"),
            ("return self.side * self.side", "return self.side + self.side"),
            ("whole = 0", "whole = 1"),
            ("whole = 0", "whole = -1"),
            ("for box, side in zip(boxes, sides, strict=True):", "for box, side in []:"),
            ('whole += cast("int | None", box.area)', "pass"),
            ("whole += 7", "pass"),
            ("whole += 7", "whole += 8"),
            ("whole += 7", "whole += 6"),
            ("@dataclass(frozen=True)", ""),
        ]
    )


def test_an_edit_elsewhere_keeps_ids_and_order(tree: Path) -> None:
    before = [mutant.id for mutant in places.sample(["box.py"], 3, None)]
    (tree / "box.py").write_text(CODE.replace('"""Module."""', '"""Module."""\n\nscale = 2 * 3\n'))
    after = [mutant.id for mutant in places.sample(["box.py"], 3, None)]
    assert len(after) == len(before) + 3  # 2, *, 3
    assert [each for each in after if each in before] == before


def test_equal_lines_of_one_function_have_ids_of_their_own(tree: Path) -> None:
    (tree / "box.py").write_text("def f(x):\n    x.add(1)\n    x.add(1)\n")
    found = places.mutants("box.py")
    assert len({mutant.id for mutant in found}) == len(found) == 6
    assert [mutant.line for mutant in found if mutant.operator == "fastdat/DeleteStatement"] == [2, 3]


def test_one_mutant_a_place() -> None:
    drawn = places.sample(["box.py"], 3, None)
    assert len({mutant.place for mutant in drawn}) == len(drawn)
    assert {mutant.place for mutant in drawn} == {mutant.place for mutant in places.mutants("box.py")}


def test_the_seed_decides_which() -> None:
    first, again, other = (places.sample(["box.py"], seed, 4) for seed in (3, 3, 4))
    assert first == again != other
    assert first == places.sample(["box.py"], 3, None)[:4]
