"""``fastdat reproduce table-cost``: counts, gradients, and the sentences about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastdat.config import DATConfig
from fastdat.experiments import cost_table
from fastdat.experiments.catalogue import Options
from fastdat.experiments.cost_rows import (
    COST_ROWS,
    DAT,
    DAT_R1_R2,
    DATT,
    PLAIN,
    R1_R2,
    SECOND,
    SECOND_R1_R2,
    CostRow,
)
from fastdat.experiments.cost_table import RowCost, _findings, run
from fastdat.experiments.outcome import Outcome
from fastdat.experiments.outcome_files import as_record, markdown
from fastdat.experiments.step_costs import Size, StepOf, Workload, seconds_of, with_head
from fastdat.experiments.step_counters import seconds_in_turns
from fastdat.util.errors import ConfigError

SMALL = Size(ndf=8, batch=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def found() -> Outcome:
    options = Options(compile=False, device="cpu", only=("no attack", "DATT", "DATT, s", "GP, LP"))
    return run(options, Path("nowhere"), size=SMALL, rounds=2)


def test_table(found: Outcome) -> None:
    (table,) = found.tables
    rows = {row.label: row.cells for row in table.rows}
    assert list(rows) == [PLAIN, DATT, "DATT, second order", "GP, LP or DRAGAN"]
    assert rows[PLAIN]["F by formula"] == 3
    assert rows[DATT]["F by formula"] == 7
    assert rows["GP, LP or DRAGAN"]["F by formula"] == 5
    for cells in rows.values():
        ours, formula = cells["F, fastdat"], cells["F by formula"]
        assert isinstance(ours, float)
        assert isinstance(formula, float)
        assert 0.92 * formula < ours <= formula * (1 + 1e-9)  # a narrow net's first layer counts for more
        assert isinstance(cells["ms, plain autograd"], float)
        assert cells["ms, fastdat compiled"] is None
        assert isinstance(cells["MiB, plain autograd"], float)
    assert set(rows[DATT]) == {column.name for column in table.columns} - {"MiB, fastdat compiled"}


def test_it_can_be_written(found: Outcome) -> None:
    text = markdown(as_record(found))
    assert "# Cost of a discriminator step, scaled down: SNGAN-32, width 8, batch 2" in text
    assert (
        '--quick --only "no attack" --only "DATT" --only "DATT, s" --only "GP, LP" --device cpu --no-compile'
        in text
    )
    assert "not compiled" not in text


def test_every_step_has_the_gradient_of_the_reference() -> None:
    """Not only small errors: the rows differ from each other, so that none is another one under a wrong name."""
    workload = Workload(SMALL, CPU, torch.float64)
    gradients = {}
    for row in COST_ROWS:
        plain, eager = (StepOf(row, way, workload).gradient() for way in ("plain", "eager"))
        assert (plain - eager).norm() <= 1e-8 * plain.norm(), row.label
        gradients[row.label] = plain
    same = [
        (a, b)
        for i, a in enumerate(gradients)
        for b in list(gradients)[:i]
        if torch.equal(gradients[a], gradients[b])
    ]
    # ALP penalises slopes above 1 and LeCam logits in the right order, and this D has neither.
    assert [pair for pair in same if not {"ALP", "LeCam"} & {*pair}] == []


def test_logits_of_the_workload_are_centred() -> None:
    """Else hinge has no slope, and every attack is empty."""
    workload = Workload(SMALL, CPU)
    logits = workload.discriminator()(torch.cat(workload.batch))
    assert logits.mean().abs() < 1e-5
    assert all((side.abs() < 1).any() for side in logits.split(SMALL.batch))


def test_bytes_and_gradients_of_one_step() -> None:
    step = StepOf(COST_ROWS[0], "eager", Workload(SMALL, CPU))
    assert step.peak_bytes() > 4 * SMALL.ndf * 32 * 32  # at least one map of the first layer
    assert step.gradient().dtype == torch.float64
    assert all(p.grad is None for p in step.D.parameters())


def test_heads_change_what_a_step_costs_and_what_it_gives() -> None:
    """F of gradient normalisation has no formula; SAN's last layer begins with the logits of the plain one."""
    outcome = run(
        Options(compile=False, device="cpu", only=("gradient norm", "SAN")),
        Path("nowhere"),
        size=SMALL,
        rounds=1,
    )
    rows = {row.label: row.cells for row in outcome.tables[0].rows}
    assert rows["gradient normalisation"]["F by formula"] is None
    assert rows["SAN"]["F by formula"] == 3
    flops = {label: cells["F, fastdat"] for label, cells in rows.items()}
    assert isinstance(flops["gradient normalisation"], float)
    assert isinstance(flops["SAN"], float)
    assert flops["SAN"] < 3.01
    # A forward and a backward pass for the norm, and a backward pass of both, which is twice as much: 6, and a little
    # less since nothing needs the gradient for the images.
    assert 5.5 < flops["gradient normalisation"] < 6.01
    workload = Workload(SMALL, CPU, torch.float64)
    D, x = workload.discriminator(), workload.batch[0]
    logits, _ = with_head(workload.discriminator(), "san")(x)
    torch.testing.assert_close(logits, D(x), rtol=1e-9, atol=1e-9)
    assert with_head(workload.discriminator(), "gn")(x).abs().max() < 1


def test_rounds() -> None:
    workload = Workload(SMALL, CPU)
    steps = {name: StepOf(COST_ROWS[0], "eager", workload) for name in ("a", "b")}
    seconds = seconds_in_turns(steps, seconds_of, rounds=3, warmup=1)
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}
    assert min(min(found) for found in seconds.values()) > 0


def test_only_the_rows_that_are_wanted() -> None:
    with pytest.raises(ConfigError, match=r"--only DAN leaves no arm\. The arms are: no attack; DAT;"):
        run(Options(only=("DAN",)), Path("nowhere"), size=SMALL)
    assert [row.label for row in cost_table._rows_wanted(("DATT",))] == [DATT], "a whole name"
    assert [row.label for row in cost_table._rows_wanted(("TT, s",))] == ["DATT, second order"]


def test_what_is_compiled() -> None:
    brief, other = replace(COST_ROWS[0], brief=True), replace(COST_ROWS[0], brief=False)
    ways = cost_table._ways
    assert ways(brief, Options(quick=True)) == ["plain", "eager", "compiled"]
    assert ways(other, Options(quick=True)) == ["plain", "eager"]
    assert ways(other, Options(quick=False)) == ["plain", "eager", "compiled"]
    assert ways(brief, Options(compile=False)) == ["plain", "eager"]


# --- sentences -------------------------------------------------------------------------------------------------------


def cost_of(label: str, flops: float, formula: float, *, seconds: float, error: float = 1e-7) -> RowCost:
    row = CostRow(label, DATConfig())
    times = {"plain": [4 * seconds], "eager": [9.0, seconds, 0.0]}
    return RowCost(row, formula, {"eager": flops}, {}, {"eager": error}, None, times)  # type: ignore[arg-type]


def test_findings() -> None:
    rows = [
        cost_of(PLAIN, 2.95, 3, seconds=0.1),
        cost_of(DAT, 4.95, 5, seconds=0.2),
        cost_of(DATT, 6.9, 7, seconds=0.3),
        cost_of(R1_R2, 5.9, 6, seconds=0.2),
        cost_of(SECOND, 7.0, 7, seconds=0.2),
        cost_of(SECOND_R1_R2, 7.0, 7, seconds=0.2, error=2e-4),
        cost_of(DAT_R1_R2, 6.3, 7, seconds=0.2),
    ]
    said = list(_findings({row.row.label: row for row in rows}))
    assert said == [
        "DAT against a step without attack: 4.95 F against 2.95 F, 2.00 times as long by plain autograd, 2.00 times as "
        "long by fastdat eager.",
        "DATT against DAT: 6.90 F against 4.95 F, 1.50 times as long by plain autograd, 1.50 times as long by fastdat "
        "eager; this agrees with the paper's statement that DATT needs more time.",
        "R1 and R2 add +2.95 F beside no attack, +1.35 F beside DAT, +0.00 F beside DAT, second order.",
        "Counts and formula differ by at most 10.0%, and gradients from those of plain autograd by at most 0.0002 of "
        "their length (DAT, second order, + R1 + R2).",
    ]


def test_a_statement_that_does_not_hold_is_said_not_to() -> None:
    rows = [cost_of(DAT, 5, 5, seconds=0.3), cost_of(DATT, 7, 7, seconds=0.2)]
    said = list(_findings({row.row.label: row for row in rows}))
    assert said[0].endswith(
        "this does not agree in each way of computing it with the paper's statement that DATT needs more time."
    )
    assert len(said) == 2
