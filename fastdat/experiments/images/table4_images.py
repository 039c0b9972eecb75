"""Table IV on images: DAT at three places of the training, with SNGAN on CIFAR-10.

The paper gives the net, eps 1, one attack step, and scores at the best FID. It does not say how position (iii), the
attack in G's step, passes a gradient. Both readings are run: the change is a constant that the gradient passes by
("pass"), or the attacked image is a constant, so that G gets no gradient at all ("cut"). The released code makes its
attacked images so that they cut the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.held_out import with_test_scores
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.thin_runs import FULL_EVAL, KID, full_protocol, thin, thin_protocol
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import TABLE_IV, TABLE_IV_SCORES, PositionRow
from fastdat.experiments.spent_time import timed
from fastdat.training.presets import preset
from fastdat.training.train_config import TrainConfig

QUICK_STEPS = 900
WIRINGS = ("pass", "cut")

_SCORES: Mapping[str, tuple[str, str, int]] = {
    "IS": ("is", "train", 2),
    "train FID": ("fid", "train", 2),
    "test FID": ("fid", "test", 2),
    "train KID": ("kid", "train", 4),
    "test KID": ("kid", "test", 4),
}
"""Columns of the table -> score, split, decimal places."""

_RANKING: Mapping[bool, tuple[str, texts.Which]] = {True: ("kid", "last"), False: ("fid", "best")}
"""Scaled down or not -> what compares the rows."""


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train all rows, position (iii) with both wirings: SNGAN in full length, or a thin DCGAN."""
    return _outcome("table4-images", options, folder)


@timed
def run_table4(options: Options, folder: Path) -> Outcome:
    """The same in full length, by the name of ``table4``, whose scaled-down version is on points."""
    return _outcome("table4", options, folder)


def _outcome(name: str, options: Options, folder: Path) -> Outcome:
    arms, seeds = arms_wanted(arms_of(options.quick), options.only), options.seeds or 1
    # Each row has graphs of its own, which take longer to compile than so short a training saves.
    compiled = options.compile and not options.quick
    also = () if options.quick else ("test",)
    found: texts.Found = train_all(arms, seeds, replace(options, compile=compiled), folder, also=also)
    if not options.quick:
        found = {name: with_test_scores(runs, options) for name, runs in found.items()}
    first = arms[0].config
    return Outcome(
        name=name,
        title="Table IV"
        + (", scaled down: a thin DCGAN on CIFAR-10" if options.quick else ": SNGAN on CIFAR-10"),
        quick=options.quick,
        command=texts.command(name, options, seeds),
        protocol=(
            thin_protocol(first) if options.quick else full_protocol(first),
            f"eps {preset('sngan-dat-cifar10').dat.eps:g} as fastdat's default, which is divided by the batch size as "
            "in the released code, and one attack step. Position (iii): the attack of D's step, on the fakes of G's "
            "step.",
        ),
        tables=(
            _quick_table(found) if options.quick else _full_table(found),
            *texts.divergences(found, best=not options.quick),
        ),
        findings=tuple(findings(found, options.quick)),
        notes=tuple(_notes()),
        config=texts.settings(arms, seeds),
        details=texts.details(found),
        origin=texts.origin(found),
    )


def rows() -> tuple[tuple[str, PositionRow, str], ...]:
    """Label, row of the paper and ``dat_generator`` of each row of ours; those with (iii) stand there twice."""
    listed = []
    for row in TABLE_IV.values():
        for wiring in WIRINGS if row.generator else ("none",):
            label = row.name if wiring == "none" else f"{row.name}, {wiring}"
            listed.append((label, row, wiring))
    return tuple(listed)


def arms_of(quick: bool) -> tuple[Arm, ...]:
    """One arm for each of :func:`rows`."""
    return tuple(Arm(label, _config(row, wiring, quick)) for label, row, wiring in rows())


def _config(row: PositionRow, wiring: str, quick: bool) -> TrainConfig:
    changes: dict[str, Any] = {"dat.real": row.real, "dat.fake": row.fake, "dat_generator": wiring}
    if quick:
        return thin(preset("dcgan-dat-cifar10").replace(changes), QUICK_STEPS)
    return preset("sngan-dat-cifar10").replace(changes | {"dat.eps": 1.0, "dat.steps": 1, "eval": FULL_EVAL})


def _full_table(found: texts.Found) -> ResultTable:
    columns = tuple(Column(name, _SCORES[name][2]) for name in TABLE_IV_SCORES)
    cells = {
        label: {
            name: scores_of(found.get(label, ()), _SCORES[name][0], _SCORES[name][1], "best")
            for name in TABLE_IV_SCORES
        }
        for label, _, _ in rows()
    }
    lines = tuple(Row(label, cells[label], row.scores) for label, row, _ in rows())
    title = "Scores (inception-v3-compat) at the step of the best train FID"
    return ResultTable(title, "DAT at", columns, tuple(lines), columns, comparable=True)


def _quick_table(found: texts.Found) -> ResultTable:
    lines = tuple(
        Row(label, {KID: scores_of(found.get(label, ()), "kid")}, {"train FID": row.scores["train FID"]})
        for label, row, _ in rows()
    )
    title = "Score at the last step, beside the paper's train FID of SNGAN"
    return ResultTable(title, "DAT at", (Column(KID),), lines, (Column("train FID"),))


def findings(found: texts.Found, quick: bool) -> Iterator[str]:
    """The best row, and all rows against the baseline."""
    head = KID if quick else "best train FID"
    score, which = _RANKING[quick]
    cells = {label: scores_of(found.get(label, ()), score, which=which) for label, _, _ in rows()}
    base = next(label for label, row, _ in rows() if not (row.real or row.fake or row.generator))
    measured = {label: cell.mean for label, cell in cells.items() if isinstance(cell, Runs)}
    if len(measured) > 1:
        yield f"The lowest {head} is that of {min(measured, key=lambda label: measured[label])!r}."
    yield from texts.ranking(head, {k: v for k, v in cells.items() if k != base}, base, cells[base])


def _notes() -> Iterator[str]:
    generator, everywhere = TABLE_IV["Generator only"].scores, TABLE_IV["All"].scores
    yield (
        f'In the paper "Generator only" has train FID {generator["train FID"]:g} and IS {generator["IS"]:g}, and "All" '
        f"has train FID {everywhere['train FID']:g}, at the best checkpoint of each run. So bad a score at the best "
        "checkpoint fits a G that never learned anything."
    )
    yield (
        "The released code makes attacked images with Variable(x, requires_grad=True), which cuts the graph. That is a "
        'reading and no proof: used so in G\'s step, G gets no gradient, as in "cut" here. If "cut" gives the paper\'s '
        'scores and "pass" does not, the rows with position (iii) say nothing about DAT in G\'s step.'
    )
