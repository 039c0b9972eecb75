"""``fastdat reproduce table-cost``: what each way to train D costs, in FLOPs, time and memory.

The paper gives no cost. It says that DAT works "without excessive cost" (Sec. I), and that DATT "requires more training
time" than DAT (Sec. IV-C). Net, batch and rows are ours: SNGAN's D at 32 pixels, DAT, what Table III compares it with,
and what is used beside it today.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from fastdat.experiments.arm_choice import chosen_names
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
from fastdat.experiments.figure_style import COLOURS, INK, style_axes
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Value
from fastdat.experiments.step_costs import Size, StepOf, Way, Workload, seconds_of
from fastdat.experiments.step_counters import seconds_in_turns
from fastdat.regularizers.cost import cost
from fastdat.regularizers.term_registry import make_term, plain
from fastdat.training.build import choose_device

QUICK, FULL = Size(ndf=32, batch=16), Size(ndf=128, batch=64)
ROUNDS = 9
_MEBIBYTE = 2**20

_COLUMNS = (
    Column("F, plain autograd"),
    Column("F, fastdat"),
    Column("F by formula"),
    Column("ms, plain autograd", 0),
    Column("ms, fastdat eager", 0),
    Column("ms, fastdat compiled", 0),
    Column("MiB, plain autograd", 0),
    Column("MiB, fastdat eager", 0),
    Column("MiB, fastdat compiled", 0),
)
_WAYS: dict[Way, str] = {
    "plain": "plain autograd",
    "eager": "fastdat eager",
    "compiled": "fastdat compiled",
}


@dataclass
class RowCost:
    """What is known about a row.

    Args:
        row: the step.
        formula: :func:`fastdat.regularizers.cost`, in F; None for gradient normalisation, which it does not count.
        flops: counted, in F, for the uncompiled ways.
        peak: bytes beside parameters and batch.
        error: largest difference between fastdat's gradient and that of plain autograd, over the gradient's length.
        compile_seconds: of the first compiled step.
        seconds: of one step, one number a round.
    """

    row: CostRow
    formula: float | None
    flops: dict[Way, float]
    peak: dict[Way, int]
    error: dict[Way, float]
    compile_seconds: float | None
    seconds: dict[Way, list[float]]

    def milliseconds(self, way: Way) -> float | None:
        """The median over all rounds; None where the step was not taken that way."""
        return 1e3 * statistics.median(self.seconds[way]) if way in self.seconds else None


def run(options: Options, folder: Path, *, size: Size | None = None, rounds: int = ROUNDS) -> Outcome:
    """Measure all rows on one machine; nothing is written to ``folder``.

    Args:
        options: ``quick`` takes a D of width 32 and batches of 16, and compiles only the most important rows; else D
            has the paper's width of 128, and batches of 64.
        folder: of the experiment.
        size: width and batch, if they are others.
        rounds: timings of each step.

    Raises:
        ConfigError: ``options.only`` leaves no row, or there is no such device.
    """
    start = time.perf_counter()
    size = size or (QUICK if options.quick else FULL)
    device = choose_device(options.device)
    workload = Workload(size, device)
    steps: dict[tuple[str, Way], StepOf] = {}
    found = [_examine(row, workload, _ways(row, options), steps) for row in _rows_wanted(options.only)]
    timed = seconds_in_turns(steps, seconds_of, rounds=rounds, warmup=1)
    for cost_of in found:
        cost_of.seconds = {way: timed[label, way] for label, way in steps if label == cost_of.row.label}
    return _outcome(options, found, size, device, rounds, time.perf_counter() - start)


def _rows_wanted(only: Sequence[str]) -> list[CostRow]:
    wanted = chosen_names([row.label for row in COST_ROWS], only)
    return [row for row in COST_ROWS if row.label in wanted]


def _ways(row: CostRow, options: Options) -> list[Way]:
    compiled: list[Way] = ["compiled"] if options.compile and (row.brief or not options.quick) else []
    return ["plain", "eager", *compiled]


def _examine(
    row: CostRow, workload: Workload, ways: Sequence[Way], steps: dict[tuple[str, Way], StepOf]
) -> RowCost:
    """Everything about a row except its speed; its steps are added to ``steps``."""
    forward = workload.forward_flops()
    formula = None if row.head == "gn" else cost(row.attack, tuple(map(make_term, row.terms)))
    found = RowCost(row, formula, {}, {}, {}, None, {})
    expected = torch.empty(0)
    for way in ways:
        step = StepOf(row, way, workload)
        start = time.perf_counter()
        gradient = step.gradient()
        if way == "plain":
            expected = gradient
        else:
            found.error[way] = float((gradient - expected).norm() / expected.norm())
        if way == "compiled":
            found.compile_seconds = time.perf_counter() - start
        else:
            found.flops[way] = step.flops() / forward
        found.peak[way] = step.peak_bytes()
        steps[row.label, way] = step
    return found


# --- what is said about it -------------------------------------------------------------------------------------------


def _outcome(
    options: Options, found: Sequence[RowCost], size: Size, device: torch.device, rounds: int, seconds: float
) -> Outcome:
    scaled = ", scaled down" if options.quick else ""
    return Outcome(
        name="table-cost",
        title=f"Cost of a discriminator step{scaled}: SNGAN-32, width {size.ndf}, batch {size.batch}",
        quick=options.quick,
        command=_command(options),
        protocol=(
            f"One step of D with its backward pass, fp32, SNGAN's D at 32 pixels with {size.ndf} channels, "
            f"{size.batch} reals and as many fakes of uniform noise. F is one forward pass of D on all of them. FLOPs "
            "are those of convolutions and matrix products, counted while the uncompiled step runs, which is not "
            "folded. The gradient for the images is not computed where nothing needs it, so that counts lie a little "
            "below the formula of `fastdat.regularizers.cost`. Plain autograd is `fastdat.reference`, which shares "
            "nothing between attack, terms and loss; a program written by hand with care lies between the two.",
            f"Times are medians of {rounds} rounds, in each of which every step is taken once, in a random order, on "
            f"{_place(device)}. Compare times "
            "within the table only. Memory is the most that one step's tensors hold beside parameters and batch.",
        ),
        tables=(_table(found),),
        findings=tuple(_findings({cost_of.row.label: cost_of for cost_of in found})),
        notes=(
            "The paper gives no cost of any method, so that there is nothing to compare the numbers with.",
            "DATT is clean and perturbed samples with equal weight (`clean_weight=1`).",
            "R1 takes its gradient from the step's own pass. Code that calls D once more for it, as StyleGAN's does, "
            "costs more than this row; it is not measured.",
            *(_left_out(found) if options.quick and options.compile else ()),
        ),
        config={
            **asdict(size),
            "rounds": rounds,
            "device": device.type,
            "rows": [_settings(c.row) for c in found],
        },
        details={"rows": [_details(cost_of) for cost_of in found]},
        figures={"": _figure(found)},
        seconds=seconds,
    )


def _place(device: torch.device) -> str:
    return "one GPU" if device.type == "cuda" else f"a CPU, threads: {torch.get_num_threads()}"


def _command(options: Options) -> str:
    parts = ["fastdat reproduce table-cost", "--quick" if options.quick else "--full"]
    parts += [f'--only "{part}"' for part in options.only]
    parts += [] if options.device == "auto" else [f"--device {options.device}"]
    return " ".join([*parts, *([] if options.compile else ["--no-compile"])])


def _left_out(found: Sequence[RowCost]) -> Iterator[str]:
    labels = [c.row.label for c in found if "compiled" not in c.seconds]
    if labels:
        yield (
            "Compiling takes most of the time, so that in this scaled-down run only some rows are compiled; not "
            f"compiled: {'; '.join(labels)}."
        )


def _table(found: Sequence[RowCost]) -> ResultTable:
    def cells(cost_of: RowCost) -> dict[str, Value]:
        made: dict[str, Value] = {"F by formula": cost_of.formula}
        made |= {f"F, {'plain autograd' if w == 'plain' else 'fastdat'}": f for w, f in cost_of.flops.items()}
        made |= {f"ms, {name}": cost_of.milliseconds(way) for way, name in _WAYS.items()}
        made |= {
            f"MiB, {name}": cost_of.peak[way] / _MEBIBYTE
            for way, name in _WAYS.items()
            if way in cost_of.peak
        }
        return made

    rows = tuple(Row(cost_of.row.label, cells(cost_of)) for cost_of in found)
    return ResultTable("Cost of one step of D", "step", _COLUMNS, rows)


def _findings(rows: Mapping[str, RowCost]) -> Iterator[str]:
    """One sentence for each statement whose rows were measured."""
    if PLAIN in rows and DAT in rows:
        yield f"DAT against a step without attack: {_against(rows[DAT], rows[PLAIN])}."
    if DAT in rows and DATT in rows:
        slower = _ratios(rows[DATT], rows[DAT])
        said = (
            "agrees"
            if all(ratio > 1 for ratio in slower.values())
            else "does not agree in each way of computing it"
        )
        yield (
            f"DATT against DAT: {_against(rows[DATT], rows[DAT])}; this {said} with the paper's statement that DATT "
            "needs more time."
        )
    pairs = ((PLAIN, R1_R2), (DAT, DAT_R1_R2), (SECOND, SECOND_R1_R2))
    added = [
        f"{rows[more].flops['eager'] - rows[less].flops['eager']:+.2f} F beside {less}"
        for less, more in pairs
        if less in rows and more in rows
    ]
    if added:
        yield f"R1 and R2 add {', '.join(added)}."
    apart = max((abs(c.flops["eager"] / c.formula - 1) for c in rows.values() if c.formula), default=0.0)
    error, worst = max((error, label) for label, c in rows.items() for error in c.error.values())
    yield (
        f"Counts and formula differ by at most {100 * apart:.1f}%, and gradients from those of plain autograd by at "
        f"most {error:.1g} of their length ({worst})."
    )


def _ratios(one: RowCost, other: RowCost) -> dict[str, float]:
    """How many times as long one step takes as the other, by the name of the way."""
    times = {name: (one.milliseconds(way), other.milliseconds(way)) for way, name in _WAYS.items()}
    return {name: a / b for name, (a, b) in times.items() if a is not None and b is not None}


def _against(one: RowCost, other: RowCost) -> str:
    ratios = [f"{ratio:.2f} times as long by {name}" for name, ratio in _ratios(one, other).items()]
    return f"{one.flops['eager']:.2f} F against {other.flops['eager']:.2f} F, {', '.join(ratios)}"


def _settings(row: CostRow) -> dict[str, Any]:
    return {
        "label": row.label,
        "attack": {"kind": type(row.attack).__name__, **asdict(row.attack)},
        "regularizers": [plain(term) for term in row.terms],
        "head": row.head,
        "loss": row.loss,
    }


def _details(cost_of: RowCost) -> dict[str, Any]:
    return {
        "label": cost_of.row.label,
        "gradient_error": cost_of.error,
        "compile_seconds": cost_of.compile_seconds,
        "peak_bytes": cost_of.peak,
        "seconds": cost_of.seconds,
    }


def _figure(found: Sequence[RowCost]) -> Figure:
    """A group of bars for each row: milliseconds by each way."""
    figure = Figure(figsize=(8, 0.32 * len(found) + 1.2), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    axes.grid(visible=False)
    for i, (way, name) in enumerate(_WAYS.items()):
        bars = [(row - 0.27 * (1 - i), c.milliseconds(way)) for row, c in enumerate(found)]
        known = [(place, value) for place, value in bars if value is not None]
        axes.barh(
            [place for place, _ in known], [value for _, value in known], 0.25, color=COLOURS[i], label=name
        )
    axes.set_yticks(range(len(found)), [c.row.label for c in found])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a step", color=INK)
    axes.margins(y=0.02)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return figure
