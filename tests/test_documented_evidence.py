"""What the README says of DAT's effect is what the committed evidence says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastdat.experiments.evidence import protocol
from fastdat.experiments.evidence.curve_numbers import TOLD_APART
from fastdat.experiments.evidence.curve_tables import ERRORS, SCORE, TIMES
from tests.environment import REPOSITORY
from tests.test_documented_numbers import claims, numbers, results

Cells = dict[str, dict[str, Any]]
NONE, DAT, SECOND, LP = protocol.NONE, protocol.DAT, protocol.SECOND, protocol.LP
IMAGES = {
    "CIFAR-10, SNGAN": protocol.SNGAN,
    "CIFAR-10, DCGAN": protocol.DCGAN,
    "CIFAR-10, DCGAN, WGAN loss": protocol.WGAN,
}


def rows(study: str, table: int = 0) -> Cells:
    """Arm -> the cells of a table of a page."""
    found = results(f"reproduce/{study}.json")["tables"][table]["rows"]
    return {row["label"]: row["cells"] for row in found}


def section() -> str:
    return (REPOSITORY / "README.md").read_text().split("### Where DAT wins\n")[1].split("\n## ")[0]


def table() -> dict[str, list[str]]:
    """What is trained -> the other cells of its row."""
    lines = [line for line in section().splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.sub(r" \(\[JSON\].*", "", first): others for first, *others in cells}


def with_errors(value: float, errors: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if errors is None else f" ({errors:+.1f})")


@pytest.mark.parametrize("mixture", ["ring", "grid"])
def test_points(mixture: str) -> None:
    arms, apart = rows("evidence-points"), rows("evidence-points", 1)
    key, name = f"modes, {mixture}", {"ring": "ring of 8 Gaussians", "grid": "grid of 25 Gaussians"}[mixture]
    assert {cell["n"] for arm in arms.values() for cell in arm.values()} == {8}
    expected = [
        with_errors(arms[arm][key]["mean"], apart[arm][key] if arm != NONE else None, 1)
        for arm in (NONE, DAT, SECOND)
    ]
    assert table()[name] == ["modes found, 8 seeds", *expected]
    assert all(apart[arm][key] > TOLD_APART for arm in (DAT, SECOND))
    for what in (key, f"quality, {mixture}"):  # "the gradient penalty LP does it as well"
        assert arms[LP][what]["mean"] >= arms[DAT][what]["mean"]


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str) -> None:
    scores = rows(IMAGES[name].name)
    seeds = IMAGES[name].seeds
    assert {scores[arm][SCORE]["n"] for arm in scores} == {seeds}
    expected = [
        with_errors(scores[arm][SCORE]["mean"], scores[arm].get(ERRORS), 3) if arm in scores else ""
        for arm in (NONE, DAT, SECOND)
    ]
    assert table()[name] == [f"KID, {seeds} seeds", *expected]


def test_time() -> None:
    costs = rows("evidence", 2)
    assert table()["the DCGAN"] == [
        "time of a run",
        "1",
        *(f"{costs[arm][TIMES]:.2f}" for arm in (DAT, SECOND)),
    ]


def test_the_text() -> None:
    arms = rows("evidence-points")
    quality = [
        f"{arms[arm][f'quality, {mixture}']['mean']:.2f}"
        for arm in (DAT, NONE)
        for mixture in ("ring", "grid")
    ]
    text = " ".join(section().split("In brackets:")[1].split())
    assert f"From {TOLD_APART:.0f} on two are told apart" in text
    assert [n for n in numbers(text) if n.startswith("0.")][:4] == quality
    assert f"ngf = ndf = {protocol.WIDTH};" in text


def test_where_dat_wins() -> None:
    """The first sentence."""
    assert "second-order DAT wins with thin SNGANs" in claims()[1]
    assert rows("evidence-sngan")[SECOND][ERRORS] <= -TOLD_APART
    assert abs(rows("evidence-sngan")[DAT][ERRORS]) < TOLD_APART  # of first order it is not said


def test_where_it_does_not() -> None:
    """The second sentence; 'cannot be told apart' is what the test of the protocol says."""
    assert (
        f"at any of {len(protocol.LRS)} learning rates or {len(protocol.LEVELS)} perturbation levels"
        in claims()[1]
    )
    for study in (protocol.DCGAN, protocol.WGAN, protocol.RATES, protocol.STRENGTH):
        scores = rows(study.name)
        attacked = [arm for arm in scores if arm.endswith((DAT, SECOND))]
        assert len(attacked) == {"evidence-rates": 5, "evidence-strength": 10}.get(study.name, len(attacked))
        assert attacked
        assert all(abs(scores[arm][ERRORS]) < TOLD_APART for arm in attacked), study.name
