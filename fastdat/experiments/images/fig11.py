"""Figs. 11 and 12: uncurated images of SSGAN and of SSGAN with DAT, side by side.

The paper shows CIFAR-10, CIFAR-100 and STL-10 (Fig. 11) and LSUN-Bedroom (Fig. 12), trained as in Table II. Ours: equal
z in equal places, the last checkpoint, the first seed. Nobody chooses among the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.grid_pairs import LATENTS, SHOWN, draw_pairs, panel
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.thin_runs import FULL_FID, KID, full_protocol, thin, thin_protocol
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row
from fastdat.experiments.paper_tables import TABLE_I
from fastdat.experiments.spent_time import timed
from fastdat.report.table2 import COLUMNS, SCORES
from fastdat.training.presets import preset

SIDES = {"SSGAN": "ssgan", "SSGAN-DAT": "ssgan-dat"}
FIGURES: Mapping[str, tuple[str, ...]] = {"": ("cifar10", "cifar100", "stl10"), "-lsun": ("lsun-bedroom",)}
"""End of the picture's file name -> its data sets: Fig. 11 and Fig. 12."""
QUICK_FIGURES: Mapping[str, tuple[str, ...]] = {"": ("cifar10",)}
QUICK_STEPS = 600
QUICK: Mapping[str, Any] = {"ngf": 32, "ndf": 32, "batch_size": 16, "n_dis": 2}
"""Beside :func:`thin`'s settings: what two CPU cores train in minutes."""


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train both sides on the data sets of both figures, of which ``--only`` chooses; scaled down only on CIFAR-10."""
    arms, seeds = arms_wanted(arms_of(options.quick), options.only), options.seeds or 1
    # For few steps of a small net of many layers, compiling takes longer than it saves.
    found = train_all(arms, seeds, replace(options, compile=False) if options.quick else options, folder)
    figures = QUICK_FIGURES if options.quick else FIGURES
    datasets = tuple(dataset for shown in figures.values() for dataset in shown)
    return Outcome(
        name="fig11",
        title="Fig. 11, scaled down: a thin SSGAN on CIFAR-10" if options.quick else "Figs. 11 and 12",
        quick=options.quick,
        command=texts.command("fig11", options, seeds),
        protocol=(
            thin_protocol(arms[0].config, "SSGAN") if options.quick else full_protocol(arms[0].config),
            f"Each grid: {SHOWN} images of the last checkpoint of seed 0, from z of seed {LATENTS}. Equal places show "
            "equal z; nobody has chosen among them."
            + (
                " Not compiled, since compiling takes longer than so short a training."
                if options.quick
                else ""
            ),
        ),
        tables=(_table(datasets, found, options.quick), *texts.divergences(found)),
        findings=tuple(_findings(datasets, found, options.quick)),
        notes=(
            "Pictures of this kind cannot be compared with the paper's in numbers: it prints neither z nor how the "
            "images were drawn. Table II has the FID of the same models.",
        ),
        config=texts.settings(arms, seeds),
        details=texts.details(found),
        origin=texts.origin(found),
        figures=_draw(figures, found, options.device),
    )


def arms_of(quick: bool) -> tuple[Arm, ...]:
    """The two sides on each data set."""
    arms = []
    for dataset in (dataset for shown in (QUICK_FIGURES if quick else FIGURES).values() for dataset in shown):
        for side, model in SIDES.items():
            config = preset(f"{model}-{dataset}")
            config = thin(config, QUICK_STEPS, **QUICK) if quick else config.replace({"eval": FULL_FID})
            arms.append(Arm(_arm(side, dataset), config))
    return tuple(arms)


def _draw(figures: Mapping[str, Sequence[str]], found: texts.Found, device: str) -> dict[str, Figure]:
    """The figures of which something was trained: a row for each data set, SSGAN left and SSGAN-DAT right."""
    drawn = {}
    for end, datasets in figures.items():
        arms = [[_arm(side, dataset) for side in SIDES] for dataset in datasets]
        rows = [
            [panel(arm, found.get(arm, ()), device) for arm in row] for row in arms if set(row) & set(found)
        ]
        if rows:
            drawn[end] = draw_pairs(rows)
    return drawn


def _table(datasets: Sequence[str], found: texts.Found, quick: bool) -> ResultTable:
    score, head, digits = ("kid", KID, 2) if quick else ("fid", "Train FID (inception-v3-compat)", 2)
    rows = []
    for dataset in datasets:
        printed = dict(zip(COLUMNS, SCORES["fid", "train"][dataset], strict=True))
        cells = {side: scores_of(found.get(_arm(side, dataset), ()), score) for side in SIDES}
        rows.append(
            Row(TABLE_I[dataset].dataset, cells, {} if quick else {side: printed[side] for side in SIDES})
        )
    columns = tuple(Column(side, digits) for side in SIDES)
    paper = () if quick else columns
    title = f"{head} at the last step" + ("" if quick else "; the paper's is that of its best step")
    return ResultTable(title, "data set", columns, tuple(rows), paper, comparable=not quick)


def _findings(datasets: Sequence[str], found: texts.Found, quick: bool) -> Iterator[str]:
    score, head = ("kid", KID) if quick else ("fid", "train FID")
    for dataset in datasets:
        plain, dat = (scores_of(found.get(_arm(side, dataset), ()), score) for side in SIDES)
        yield from texts.difference(f"{TABLE_I[dataset].dataset}, {head}", "SSGAN-DAT", dat, "SSGAN", plain)


def _arm(side: str, dataset: str) -> str:
    return f"{side}, {TABLE_I[dataset].dataset}"
