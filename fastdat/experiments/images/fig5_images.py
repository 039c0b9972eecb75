"""Fig. 5: images of 0-GP and of DAT with the WGAN loss on CIFAR-10, side by side; and the same on nine Gaussians.

The paper names the loss, the two methods and, for Table III which has the same runs, the optimizer. It prints neither
the weight of 0-GP (ours: 10, on reals) nor whether WGAN's loss is of D's logits or, as in the code that it builds on,
of their sigmoid. So both are run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.grid_pairs import LATENTS, SHOWN, draw_pairs, panel
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.thin_runs import KID, full_protocol, thin, thin_protocol, train_fid
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row
from fastdat.experiments.paper_tables import TABLE_III
from fastdat.experiments.points.fig5_points import run_points
from fastdat.experiments.spent_time import timed
from fastdat.experiments.training_origin import joined
from fastdat.training.table3_config import table3_config
from fastdat.training.train_config import TrainConfig

QUICK_STEPS = 1_000
POINTS = "points"
"""Folder of the part on nine Gaussians, in that of the experiment."""
SIDES = {"0-GP": "0gp", "DAT": "dat"}
"""Left and right."""
LOSSES: Mapping[str, str] = {"wgan": "WGAN loss of the logits", "wgan-sigmoid": "WGAN loss of their sigmoid"}


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train both sides with both readings of the loss, and draw a grid of each."""
    arms, seeds = arms_wanted(arms_of(options.quick), options.only), options.seeds or 1
    found = train_all(arms, seeds, options, folder)
    points = run_points(replace(options, seeds=None, only=()), folder / POINTS)
    rows = [
        [panel(f"{side}, {words}", found.get(_arm(side, loss), ()), options.device) for side in SIDES]
        for loss, words in LOSSES.items()
    ]
    first = arms[0].config
    return Outcome(
        name="fig5",
        title="Fig. 5: 0-GP and DAT with the WGAN loss"
        + (", scaled down: thin nets" if options.quick else ""),
        quick=options.quick,
        command=texts.command("fig5", options, seeds),
        protocol=(
            thin_protocol(first, "Table III's nets") if options.quick else full_protocol(first),
            "0-GP: 10 times the mean squared norm of D's gradient at the reals, which is fastdat's default; the paper "
            "prints no weight. Nets and optimizer are those of Table III (Adam, LR 1e-4, betas 0.5 and 0.999).",
            f"Each grid: {SHOWN} images of the last checkpoint of seed 0, from z of seed {LATENTS}; equal places show "
            "equal z.",
            *points.protocol,
        ),
        tables=(_table(found, options.quick), *texts.divergences(found), points.table),
        findings=(*_findings(found, options.quick), *points.findings),
        notes=(
            "Table III has the paper's FID of these runs: 0-GP "
            f"{TABLE_III['wgan']['0gp']:.2f}, DAT {TABLE_III['wgan']['dat']:.2f}, no regularization "
            f"{TABLE_III['wgan']['none']:.2f}. An unclipped WGAN without any penalty at that FID is hard to believe of "
            "raw logits, and the code that the paper builds on ends D in a sigmoid.",
        ),
        config=texts.settings(arms, seeds) | {"points": points.config},
        details=texts.details(found) | {"points": points.details},
        origin=joined([texts.origin(found), points.origin]),
        figures={"": draw_pairs(rows), "-points": points.figure},
    )


def arms_of(quick: bool) -> tuple[Arm, ...]:
    """Both sides with both losses."""
    return tuple(
        Arm(_arm(side, loss), _config(loss, arm, quick)) for loss in LOSSES for side, arm in SIDES.items()
    )


def _config(loss: str, arm: str, quick: bool) -> TrainConfig:
    config = table3_config(loss, arm)
    return thin(config, QUICK_STEPS) if quick else train_fid(config)


def _table(found: texts.Found, quick: bool) -> ResultTable:
    score, head = ("kid", KID) if quick else ("fid", "Train FID (inception-v3-compat, 10,000 fakes)")
    rows = tuple(
        Row(
            words,
            {side: scores_of(found.get(_arm(side, loss), ()), score) for side in SIDES},
            {side: TABLE_III["wgan"][arm] for side, arm in SIDES.items()},
        )
        for loss, words in LOSSES.items()
    )
    columns = tuple(Column(side) for side in SIDES)
    title = f"{head} at the last step, beside the paper's train FID in Table III"
    return ResultTable(title, "loss", columns, rows, columns, comparable=not quick)


def _findings(found: texts.Found, quick: bool) -> Iterator[str]:
    score, head = ("kid", KID) if quick else ("fid", "train FID")
    for loss, words in LOSSES.items():
        gp, dat = (scores_of(found.get(_arm(side, loss), ()), score) for side in SIDES)
        yield from texts.difference(f"{words}, {head}", "DAT", dat, "0-GP", gp)


def _arm(side: str, loss: str) -> str:
    return f"{side}, {loss}"
