"""What docs/security.md says of ``make fuzz`` is what it found."""

from __future__ import annotations

import json

import pytest

from tests.environment import REPOSITORY
from tests.fuzz.readers import all_targets

RESULTS = REPOSITORY / "bench" / "results" / "fuzz.json"


@pytest.mark.skipif(not RESULTS.exists(), reason=f"{RESULTS.name} is not there: make fuzz writes it")
def test_the_page_says_what_fuzzing_found() -> None:
    found = json.loads(RESULTS.read_text())
    assert "more than a million changed files" in " ".join(
        (REPOSITORY / "docs" / "security.md").read_text().split()
    )
    assert found["inputs"] > 1_000_000
    assert (found["crashes"], found["executed"], found["faults"]) == (0, 0, 0)
    assert set(found["readers"]) == {target.name for target in all_targets()}, "some readers were left out"
    assert all(reader["read"] + reader["refused"] == reader["inputs"] for reader in found["readers"].values())
