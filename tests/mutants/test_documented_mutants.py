"""What CONTRIBUTING.md says of the mutants stands in bench/results/mutants.json."""

from __future__ import annotations

import json

from tests.environment import REPOSITORY

RECORD = json.loads((REPOSITORY / "bench" / "results" / "mutants.json").read_text())


def test_the_first_figure_and_the_last_one() -> None:
    first = RECORD["earlier"][0]
    said = " ".join((REPOSITORY / "CONTRIBUTING.md").read_text().split())
    assert f"at first {first['killed']} of {first['mutants']} were noticed" in said
    assert f"now {RECORD['killed']} of {RECORD['mutants']}" in said
    assert f"{RECORD['equivalent']} equivalent ones apart" in said


def test_both_are_of_one_seed_and_size() -> None:
    first = RECORD["earlier"][0]
    assert {key: first[key] for key in ("seed", "asked")} == {key: RECORD[key] for key in ("seed", "asked")}
    assert RECORD["asked"] >= 300


def test_the_survivors_are_listed() -> None:
    assert len(RECORD["survivors"]) == RECORD["mutants"] - RECORD["killed"]
    assert sum(counts.get("survived", 0) for counts in RECORD["units"].values()) == len(RECORD["survivors"])
    assert RECORD["commit"]["dirty"] is False
