"""The README's laptop recipe: what it shows was measured with the commands that stand there."""

from __future__ import annotations

import json
import statistics

from bench.environment import RESULTS
from bench.laptop_recipe import HEADING, README, RESULT, recipe
from tests.environment import REPOSITORY

FOUND = json.loads((REPOSITORY / RESULTS / RESULT).read_text())
SECTION = README.read_text().split(f"\n{HEADING}\n")[1].split("\n## ")[0]


def modes(arm: str) -> list[float]:
    return [FOUND["scores"][f"points/{arm}-{seed}"]["modes"] for seed in range(3)]


def test_the_result_is_of_these_commands() -> None:
    assert FOUND["commands"] == recipe(README.read_text()).splitlines()
    assert len(FOUND["scores"]) == 6
    assert FOUND["commit"]["dirty"] is False


def test_the_claim_is_larger_than_its_spread() -> None:
    plain, dat = modes("plain"), modes("dat")
    difference = statistics.fmean(dat) - statistics.fmean(plain)
    spread = max(max(arm) - min(arm) for arm in (plain, dat))
    assert difference > spread
    expected = f"{statistics.fmean(dat):.2f} against {statistics.fmean(plain):.2f} ("
    assert expected in FOUND["conclusion"]
    assert "dat (3 seeds) is better than plain (3 seeds)" in FOUND["conclusion"]


def test_the_readme_says_what_came_out() -> None:
    text = " ".join(SECTION.split())
    assert FOUND["conclusion"] in text
    assert f"{round(FOUND['seconds'] / 60)} minutes" in text
    assert FOUND["seconds"] < 15 * 60
    spread = max(max(arm) - min(arm) for arm in (modes("plain"), modes("dat")))
    assert f"The seeds of one group differ by up to {spread:g} " in text
