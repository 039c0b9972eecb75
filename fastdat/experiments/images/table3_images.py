"""Table III in full length: train FID on CIFAR-10 of three losses with nine regularization methods.

The paper gives z, batch size and Adam, and names a code base; ``fastdat.training.table3_config`` says what else is
taken from that code and what is ours. Ours here: each loss of the logits and of their sigmoid, an arm of second order,
and 3 seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastdat.experiments.arm_choice import by_loss
from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.thin_runs import full_protocol, train_fid
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import TABLE_III, TABLE_III_ARMS
from fastdat.experiments.spent_time import timed
from fastdat.training.table3_config import ARMS, LOSSES, STEP_ORDER, table3_config

SEEDS = 3
HEADS = TABLE_III_ARMS | {arm: "DAT, second order" for arm in ARMS if arm not in TABLE_III_ARMS}
"""Heads of the columns by the names of the arms."""

_SIGMOID = "-sigmoid"


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train all cells in full length, whatever ``options.quick`` says: the scaled-down version is on points."""
    arms = arms_wanted(arms_of(), options.only, by_loss(LOSSES, HEADS.values()))
    seeds = options.seeds or SEEDS
    found = train_all(arms, seeds, options, folder)
    return Outcome(
        name="table3",
        title="Table III: train FID on CIFAR-10 for several losses and regularization methods",
        quick=False,
        command=texts.command("table3", options, seeds),
        protocol=(
            full_protocol(arms[0].config),
            "The weights of the regularizers are not printed in the paper; each is 10, that of its source. The source "
            "of 0-GP has 100 in its text and 10 and 500 in its code, between reals and fakes; here it is on the reals. "
            "ASGAN moves each pixel by 1/255 of the range, 2/255 for images in [-1, 1]. AR compares D's logits for "
            "lsgan and wgan, else their sigmoid. DAT's eps is divided by the batch size, 64, as in the released code. "
            f"{STEP_ORDER} "
            "The nets are our reduction to 32 pixels of those for 128 pixels in the code that the paper names.",
        ),
        tables=(
            _table(found, "last", "at the last step"),
            _table(found, "best", "at the step of the best one"),
            *texts.divergences(found, best=True),
        ),
        findings=tuple(findings(found)),
        notes=(
            "The code base that the paper names applies all three losses to the sigmoid of D's output; with the loss "
            "of the original GAN this is the usual loss of the logits. Compare the paper's row with both of ours.",
            "The differences are those of FIDs of 10,000 fakes, with nets that are our reduction: the paper says of "
            "neither what it took.",
            "The paper prints no spread. DAT leads its best rival by "
            + ", ".join(f"{lead:.2f} ({loss.upper()})" for loss, lead in paper_leads().items())
            + " FID.",
        ),
        config=texts.settings(arms, seeds),
        details=texts.details(found),
        origin=texts.origin(found),
    )


def arms_of() -> tuple[Arm, ...]:
    """All cells, loss by loss."""
    return tuple(Arm(_arm(loss, arm), train_fid(table3_config(loss, arm))) for loss in LOSSES for arm in ARMS)


def paper_leads() -> dict[str, float]:
    """By how much DAT is better than the best of the methods that are not DAT, in the paper's FID, for each loss."""
    return {
        loss: min(fid for arm, fid in row.items() if arm not in ("dat", "datt")) - row["dat"]
        for loss, row in TABLE_III.items()
    }


def findings(found: texts.Found) -> Iterator[str]:
    """For each loss: the best arm, and DAT against the best of the arms that are not DAT."""
    for loss in LOSSES:
        cells = {arm: scores_of(found.get(_arm(loss, arm), ()), "fid") for arm in ARMS}
        measured = {arm: cell for arm, cell in cells.items() if isinstance(cell, Runs)}
        rivals = {arm: cell for arm, cell in measured.items() if not arm.startswith("dat")}
        if "dat" in measured and rivals:
            rival = min(rivals, key=lambda arm: rivals[arm].mean)
            best = min(measured, key=lambda arm: measured[arm].mean)
            what = f"{loss}: {HEADS[best]} has the lowest train FID. DAT and the best other method"
            yield from texts.difference(what, "DAT", measured["dat"], HEADS[rival], rivals[rival])


def _table(found: texts.Found, which: texts.Which, when: str) -> ResultTable:
    columns = tuple(Column(HEADS[arm]) for arm in ARMS)
    rows = tuple(
        Row(
            loss,
            {HEADS[arm]: scores_of(found.get(_arm(loss, arm), ()), "fid", which=which) for arm in ARMS},
            {HEADS[arm]: fid for arm, fid in TABLE_III[loss.removesuffix(_SIGMOID)].items()},
        )
        for loss in LOSSES
    )
    paper = tuple(Column(HEADS[arm]) for arm in TABLE_III_ARMS)
    title = f"Train FID (inception-v3-compat, 10,000 fakes) {when}"
    return ResultTable(title, "loss", columns, rows, paper, comparable=True)


def _arm(loss: str, arm: str) -> str:
    return f"{loss}: {HEADS[arm]}"
