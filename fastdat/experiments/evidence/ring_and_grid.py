"""The evidence on points: a ring of 8 and a grid of 25 Gaussians, which the paper does not have.

Nets and training are those of Fig. 3. An arm is compared with "no attack" as in the studies on images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fastdat.data.mixture import GRID, RING, Mixture
from fastdat.experiments.catalogue import Options
from fastdat.experiments.evidence import protocol
from fastdat.experiments.evidence.curve_numbers import TOLD_APART, apart, compared
from fastdat.experiments.evidence.protocol import GAMMA, LP_WEIGHT
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.points.ensemble import Attack
from fastdat.experiments.points.points_figure import draw_arms
from fastdat.experiments.points.quick_study import DAT, NO_ATTACK, quick_outcome, quick_study, run_quick
from fastdat.experiments.points.study import Study, StudyResult
from fastdat.experiments.points.study_tables import chosen, columns, last_cells, last_rows, measures_words
from fastdat.regularizers.gradient_penalty import LP, R1, R2
from fastdat.regularizers.term import Term

_R1_R2: tuple[Term, ...] = (R1(GAMMA), R2(GAMMA))
ARMS: Mapping[str, tuple[Attack, tuple[Term, ...]]] = {
    protocol.NONE: (NO_ATTACK, ()),
    protocol.DAT: (DAT, ()),
    protocol.SECOND: (replace(DAT, second_order=True), ()),
    protocol.PENALTIES: (NO_ATTACK, _R1_R2),
    protocol.BOTH: (DAT, _R1_R2),
    protocol.LP: (NO_ATTACK, (LP(LP_WEIGHT),)),
}
"""Those of the studies on images."""
BASE = protocol.NONE
MIXTURES = (RING, GRID)
ITERATIONS, SEEDS = 10_000, 8

_NOTES = (
    "Neither mixture is in the paper. Both are usual tests of GANs. Their modes are narrower than those of Fig. 3, and "
    "lie in the same range.",
    "Mixtures are easy for a small penalty and say little about images.",
)


def run(options: Options, folder: Path) -> Outcome:
    """Train and measure, or go on."""
    return outcome(run_quick(study(options), options, folder), options)


def study(options: Options) -> Study:
    """What is trained and measured; ``quick`` takes the iterations and seeds of the other experiments on points."""
    arms = chosen(ARMS, options.only)
    return quick_study(
        "evidence-points",
        {name: attack for name, (attack, _) in arms.items()},
        options,
        iterations=None if options.quick else ITERATIONS,
        seeds=None if options.quick else SEEDS,
        mixtures=MIXTURES,
        regularizers={name: terms for name, (_, terms) in arms.items() if terms},
    )


def outcome(result: StudyResult, options: Options) -> Outcome:
    """Tables, sentences and figure."""
    mixtures = result.study.mixtures
    tables = [ResultTable("After the last iteration", "arm", columns(mixtures), last_rows(result))]
    if BASE in result.study.arms:
        tables.append(_differences(result))
    return quick_outcome(
        result,
        options,
        title="Evidence on points: a ring of 8 and a grid of 25 Gaussians"
        + (", scaled down" if options.quick else ""),
        about=f"R1 and R2 have gamma {GAMMA:g} each, LP has weight {LP_WEIGHT:g}. Two arms are told apart where their "
        f"means differ by {TOLD_APART:g} standard errors of a difference or more (Welch).",
        tables=tables,
        findings=_findings(result),
        notes=_NOTES,
        figure=draw_arms(result.arms, mixtures, per_row=7) if result.arms else None,
    )


def _differences(result: StudyResult) -> ResultTable:
    """All measures of all arms against the base."""
    heads, base = columns(result.study.mixtures), last_cells(result, BASE)
    rows = []
    for name in _others(result):
        found = last_cells(result, name)
        rows.append(Row(name, {head.name: apart(found[head.name], base[head.name]) for head in heads}))
    title = f"Difference to '{BASE}' in standard errors"
    return ResultTable(title, "arm", tuple(Column(head.name, 1) for head in heads), tuple(rows))


def _findings(result: StudyResult) -> Iterator[str]:
    if BASE in result.study.arms:
        for mixture in result.study.mixtures:
            yield from _compared(result, mixture)
    for arm in result.arms:
        yield f"{arm.name}: {measures_words(arm.last)}."


def _compared(result: StudyResult, mixture: Mixture) -> Iterator[str]:
    """What the test says of the KL on one mixture."""
    key = f"KL, {mixture.name}"
    base = last_cells(result, BASE)[key]
    found = compared({name: last_cells(result, name)[key] for name in _others(result)}, base)
    listed = [
        f"{said}: {', '.join(f'{arm} {kl.mean:.2f} ({errors:+.1f})' for arm, (kl, errors) in arms.items())}"
        for said, arms in found.items()
        if arms
    ]
    if isinstance(base, Runs) and listed:
        yield (
            f"On the {mixture.name} of {len(mixture.means)}, KL {base.mean:.2f} with '{BASE}'. In standard errors of "
            f"the difference: {'; '.join(listed)}."
        )


def _others(result: StudyResult) -> list[str]:
    """All arms but the base, those that diverged too."""
    return [name for name in result.study.arms if name != BASE]
