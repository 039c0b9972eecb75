"""Table II: FID, KID and IS of SNGAN, SSGAN and InfoMaxGAN with and without DAT on five data sets.

The paper gives all settings of the training (Table I). Ours: scores from 50,000 fakes against 50,000 training images,
and from 10,000 fakes against all test images, as its released code does; "best" by train FID among ten steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.held_out import with_test_scores
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.table2_findings import findings, notes
from fastdat.experiments.images.thin_runs import FULL_EVAL, KID, full_protocol, thin, thin_protocol
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row
from fastdat.experiments.paper_tables import TABLE_I
from fastdat.experiments.spent_time import timed
from fastdat.report.table2 import COLUMNS, SCORES
from fastdat.training.presets import preset
from fastdat.training.train_config import TrainConfig

QUICK_STEPS = 1_000
QUICK_SIDES = {"DCGAN": "dcgan-cifar10", "DCGAN-DAT": "dcgan-dat-cifar10"}
DATASETS = ("lsun-bedroom", "tiny-imagenet", "stl10", "cifar100", "cifar10")
"""In the order of the table."""

_HEADS: Mapping[tuple[str, str | None], tuple[str, int]] = {
    ("fid", "train"): ("Train FID", 2),
    ("kid", "train"): ("Train KID", 4),
    ("fid", "test"): ("Test FID", 2),
    ("kid", "test"): ("Test KID", 4),
    ("is", None): ("IS", 2),
}
_STEPS: Mapping[Literal["best", "last"], str] = {
    "best": "at the step of the best train FID",
    "last": "at the last step",
}


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train and score the arms; in full length all 30 presets, of which ``--only`` chooses some."""
    return _quick(options, folder) if options.quick else _full(options, folder)


# --- full length -----------------------------------------------------------------------------------------------------


def full_arms() -> tuple[Arm, ...]:
    """The 30 presets of Table II, named as ``fastdat presets`` names them; those on one data set follow each other."""
    names = [f"{column.lower()}-{dataset}" for dataset in reversed(DATASETS) for column in COLUMNS]
    return tuple(Arm(name, _scored(preset(name).replace({"eval": FULL_EVAL}))) for name in names)


def _scored(config: TrainConfig) -> TrainConfig:
    """Without IS on LSUN, of which the paper reports none (Sec. IV-B)."""
    return config.replace({"eval.metrics": ["fid", "kid"]}) if config.dataset == "lsun-bedroom" else config


def _full(options: Options, folder: Path) -> Outcome:
    arms, seeds = arms_wanted(full_arms(), options.only), options.seeds or 1
    trained = train_all(arms, seeds, options, folder, also=("test",))
    found = {name: with_test_scores(runs, options) for name, runs in trained.items()}
    tables = tuple(_part(part, found, which) for which in _STEPS for part in SCORES)
    return Outcome(
        name="table2",
        title="Table II: FID, KID and IS on five data sets",
        quick=False,
        command=texts.command("table2", options, seeds),
        protocol=(
            "Table I: batch 64, Adam with LR 2e-4 and betas (0, 0.9), n_dis 5, hinge loss; LR falls linearly to 0, on "
            "Tiny-ImageNet it stays. " + full_protocol(arms[0].config),
            "Test scores: 10,000 fakes against all test images, as in the released code; the paper does not give their "
            "number. IS: 50,000 fakes in 10 parts. DAT with fastdat's default, which is the released code's size of "
            "eps. --data is one folder that holds the publishers' files of all data sets.",
        ),
        tables=(*tables, *texts.divergences(found, best=True)),
        findings=tuple(findings(tables)),
        notes=tuple(notes()),
        config=texts.settings(arms, seeds),
        details=texts.details(found),
        origin=texts.origin(found),
    )


def _part(part: tuple[str, str | None], found: texts.Found, which: Literal["best", "last"]) -> ResultTable:
    """One part of the table, with a row for each data set and a column for each model."""
    (score, split), (head, digits) = part, _HEADS[part]
    rows = []
    for dataset in DATASETS:
        printed = SCORES[part].get(dataset)
        cells = {
            column: scores_of(found.get(f"{column.lower()}-{dataset}", ()), score, split or "train", which)
            for column in COLUMNS
        }
        paper = {} if printed is None else dict(zip(COLUMNS, printed, strict=True))
        rows.append(Row(TABLE_I[dataset].dataset, cells, paper))
    columns = tuple(Column(column, digits) for column in COLUMNS)
    title = f"{head} (inception-v3-compat) {_STEPS[which]}"
    return ResultTable(title, "data set", columns, tuple(rows), columns, comparable=True)


# --- scaled down -----------------------------------------------------------------------------------------------------


def quick_arms() -> tuple[Arm, ...]:
    """A thin DCGAN on CIFAR-10 without an attack and with DAT."""
    return tuple(Arm(side, thin(preset(name), QUICK_STEPS)) for side, name in QUICK_SIDES.items())


def _quick(options: Options, folder: Path) -> Outcome:
    arms, seeds = arms_wanted(quick_arms(), options.only), options.seeds or 3
    found = train_all(arms, seeds, options, folder)
    cells = {side: scores_of(found.get(side, ()), "kid") for side in QUICK_SIDES}
    printed = dict(zip(COLUMNS, SCORES["kid", "train"]["cifar10"], strict=True))
    table = ResultTable(
        f"{KID} at the last step, beside the paper's train KID by Inception: other nets, other length, other score",
        "data set",
        tuple(Column(side, 3) for side in QUICK_SIDES),
        (Row("CIFAR-10", cells, printed),),
        tuple(Column(column, 4) for column in COLUMNS),
    )
    return Outcome(
        name="table2",
        title="Table II, scaled down: a thin DCGAN on CIFAR-10",
        quick=True,
        command=texts.command("table2", options, seeds),
        protocol=(
            thin_protocol(arms[0].config),
            "There is no honest version of 100,000 SNGAN steps for a CPU, so this only asks whether DAT lowers the KID "
            "of a small GAN early in its training.",
        ),
        tables=(table, *texts.divergences(found)),
        findings=tuple(texts.difference(KID, "DCGAN-DAT", cells["DCGAN-DAT"], "DCGAN", cells["DCGAN"])),
        notes=tuple(notes()),
        config=texts.settings(arms, seeds),
        details=texts.details(found),
        origin=texts.origin(found),
    )
