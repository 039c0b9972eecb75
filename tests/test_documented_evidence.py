"""What the README says of DAT's effect is what the committed evidence says."""

from __future__ import annotations

from typing import Any

from fastdat.experiments.evidence import protocol
from fastdat.experiments.evidence.curve_numbers import TOLD_APART
from fastdat.experiments.evidence.curve_tables import ERRORS, SCORE, TIMES
from tests.test_documented_numbers import claims, numbers, results


def rows(study: str, table: int = 0) -> dict[str, dict[str, Any]]:
    """Arm -> the cells of a table of a page."""
    found = results(f"reproduce/{study}.json")["tables"][table]["rows"]
    return {row["label"]: row["cells"] for row in found}


def means(arm: dict[str, Any], what: str, digits: int) -> list[str]:
    return [f"{arm[f'{what}, {mixture}']['mean']:.{digits}f}" for mixture in ("ring", "grid")]


def test_where_dat_wins() -> None:
    """The first sentence."""
    arms = rows("evidence-points")
    plain, dat, lp = arms[protocol.NONE], arms[protocol.DAT], arms[protocol.LP]
    assert {cell["n"] for arm in arms.values() for cell in arm.values()} == {8}
    expected = ["8", "25", *means(dat, "modes", 1), *means(plain, "modes", 1), "8"]
    expected += [*means(dat, "quality", 2), *means(plain, "quality", 2)]
    expected += [*means(lp, "modes", 1), *means(lp, "quality", 2)]
    assert [n.rstrip(",") for n in numbers(claims()[1].split(" It does not ")[0])] == expected
    apart = rows("evidence-points", 1)[protocol.DAT]
    assert all(apart[f"modes, {mixture}"] > TOLD_APART for mixture in ("ring", "grid"))
    at_least_as_well = ((what, mixture) for what in ("modes", "quality") for mixture in ("ring", "grid"))
    assert all(lp[f"{w}, {m}"]["mean"] >= dat[f"{w}, {m}"]["mean"] for w, m in at_least_as_well)


def test_where_it_does_not() -> None:
    """The second sentence; 'cannot be told apart' is what the test of the protocol says."""
    scores, costs = rows("evidence"), rows("evidence", 2)
    attacked = (protocol.DAT, protocol.SECOND)
    assert {scores[arm][SCORE]["n"] for arm in scores} == {4}
    expected = [
        "16",
        "10,000",
        "4",
        *(f"{scores[arm][SCORE]['mean']:.3f}" for arm in (protocol.NONE, *attacked)),
    ]
    expected += [f"{abs(scores[arm][ERRORS]):.1f}" for arm in attacked]
    expected += [f"{costs[arm][TIMES]:.2f}" for arm in attacked]
    assert [n.rstrip(",") for n in numbers(claims()[1].split(" It does not ")[1])] == expected
    assert all(abs(scores[arm][ERRORS]) < TOLD_APART for arm in attacked)
    assert "cannot be told apart" in claims()[1]
    assert "second half of 10,000 steps" in claims()[1]
