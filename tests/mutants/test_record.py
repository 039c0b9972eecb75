"""The record counts what was noticed, names what was not, and keeps the figures of the runs before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mutants import places
from tests.mutants.record import record, write
from tests.mutants.running import Outcome


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """Of five mutants in three units, of which two survive."""
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    files = ["kernels/area.py", "fastdat/losses.py", "fastdat/data/box.py"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("def area(x, y):\n    return x * y\n")
    mutants = [mutant for file in files for mutant in places.mutants(file)][:5]
    by = ["tests/test_a.py::test_b", None, "timeout", "tests/test_a.py::test_c", None]
    return [Outcome(mutant, each) for mutant, each in zip(mutants, by, strict=True)]


def test_counts(outcomes: list[Outcome]) -> None:
    made = record(outcomes, seed=7, asked=9, equivalents=3, seconds=12.4)
    expected = {
        "seed": 7,
        "asked": 9,
        "mutants": 5,
        "equivalent": 3,
        "killed": 3,
        "share_killed": 0.6,
        "timeouts": 1,
    }
    assert {key: made[key] for key in expected} == expected
    assert made["seconds"] == 12
    assert made["units"] == {
        "data": {"survived": 1},
        "kernels": {"killed": 1, "survived": 1},
        "losses": {"killed": 2},
    }


def test_survivors_in_the_order_of_the_tree(outcomes: list[Outcome]) -> None:
    survivors = record(outcomes, seed=7, asked=9, equivalents=0, seconds=1)["survivors"]
    assert [each["file"] for each in survivors] == ["fastdat/data/box.py", "kernels/area.py"]
    assert survivors[0]["in"] == "area"
    assert survivors[0]["line"] == 2
    assert survivors[0]["old"] == "return x * y" != survivors[0]["new"]


def test_figures_of_the_runs_before_are_kept(outcomes: list[Outcome], tmp_path: Path) -> None:
    path = tmp_path / "mutants.json"
    for kept in (3, 4, 5):
        write(path, record(outcomes[:kept], seed=7, asked=9, equivalents=0, seconds=kept))
    read = json.loads(path.read_text())
    assert read["mutants"] == 5
    assert [run["mutants"] for run in read["earlier"]] == [3, 4]
    assert all("survivors" not in run for run in read["earlier"])
