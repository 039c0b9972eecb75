"""Table III: DAT beside other regularizers. Scaled down: nine Gaussians in place of CIFAR-10.

The paper gives the methods and their train FID with three losses. It prints no weights of the penalties and no spread.
Ours: nets, training and data of Fig. 3, the weights of
:mod:`fastdat.experiments.points.regularizer_study`, four runs for each mixture, and further arms: DAT in second order,
DAT with a small penalty on both sides, and that penalty alone.

The code base that the paper names for this table ends D with a sigmoid. With the loss ``gan`` that is the usual logits
form; ``lsgan`` and ``wgan`` are other losses then, ``lsgan-sigmoid`` and ``wgan-sigmoid``, with a few arms each.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastdat.experiments.arm_choice import by_loss, chosen_names
from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Value
from fastdat.experiments.paper_tables import TABLE_III
from fastdat.experiments.points.ensemble import Recipe
from fastdat.experiments.points.quick_study import quick_study, run_quick
from fastdat.experiments.points.regularizer_study import ARMS as REGULARIZER_ARMS
from fastdat.experiments.points.study import Arm, Study, StudyResult
from fastdat.experiments.points.study_record import arms_as_dict, settings_as_dict
from fastdat.experiments.points.study_tables import (
    DIVERGED,
    MEASURES,
    NOT_COMPARABLE,
    arm_words,
    columns,
    command,
    last_rows,
    mean,
    over_mixtures,
    protocol,
)
from fastdat.experiments.training_origin import joined

#: Name of an arm in ``regularizer_study`` -> column of Table III; None: not in the table.
ARMS: dict[str, str | None] = {
    "none": "none",
    "GP 10": "gp",
    "LP 10": "lp",
    "0-GP real 10": "0gp",
    "AR 10": "ar",
    "ASGAN": "asgan",
    "DAT": "dat",
    "DATT": "datt",
    "DAT, second order": None,
    "DAT + 0-GP both 0.1": None,
    "0-GP both 0.1": None,
}
#: Arms of the losses on a sigmoid.
SIGMOID_ARMS = ("none", "DAT", "DAT + 0-GP both 0.1", "0-GP both 0.1")
#: Loss -> its arms.
LOSSES: dict[str, tuple[str, ...]] = {
    "gan": tuple(ARMS),
    "lsgan": tuple(ARMS),
    "wgan": tuple(ARMS),
    "lsgan-sigmoid": SIGMOID_ARMS,
    "wgan-sigmoid": SIGMOID_ARMS,
}
#: Fewer than in the other experiments on points: there are 41 arms.
ITERATIONS = 1_500
_PAPER_COLUMN = "train FID"
#: A method that finds this many modes less than DAT finds about as many, and quality that is lower by more is lower.
_MODES_MARGIN, _QUALITY_MARGIN = 0.5, 0.05
_NOTES = (
    "The code base that the paper names for this table applies its losses to the output of a sigmoid. Whether the "
    "paper kept the sigmoid is not said; its numbers stand beside the losses without and with one.",
    "The paper prints neither the weights of the penalties nor a spread. Its DAT leads its best rival by 0.26, 0.02 "
    "and 0.31 FID.",
    "Lengths of a move are ours where the methods' own are made for images: AR's eps is 1e-2 (1e-4 in its source), and "
    "ASGAN's is 2/255, which is 1/255 of a range of 2; the points have no range.",
    "RFM is left out: it looks at a layer of D, which GANs that are trained at once cannot. A D of points has no layer "
    "before a batch norm either, where the released code takes it.",
    "Modes, quality and KL belong together: a penalty may cover all modes and blur them.",
    "`0-GP both 0.1` is 0.1 (R1 + R2): the squared gradient on reals and fakes, with weight 0.1 each.",
    NOT_COMPARABLE,
)


def run(options: Options, folder: Path) -> Outcome:
    """Train and measure, or go on; in full length, a DCGAN on CIFAR-10."""
    if not options.quick:
        from fastdat.experiments.images import table3_images

        return table3_images.run(options, folder)
    return outcome([run_quick(study, options, folder) for study in studies(options)], options)


def studies(options: Options) -> tuple[Study, ...]:
    """What is trained and measured: a study for each loss.

    In ``options.only``, ``"wgan"`` is all arms of this loss, ``"DAT"`` an arm with all losses, and ``"wgan: DAT"`` one
    with one. A loss has to be given whole.

    Raises:
        ConfigError: ``options.only`` leaves no arm.
    """
    names = tuple(f"{loss}: {arm}" for loss, arms in LOSSES.items() for arm in arms)
    arms_of: dict[str, list[str]] = {}
    for name in chosen_names(names, options.only, by_loss(LOSSES, ARMS)):
        loss, arm = name.split(": ")
        arms_of.setdefault(loss, []).append(arm)
    return tuple(
        quick_study(
            f"table3, {loss}",
            {arm: REGULARIZER_ARMS[arm][0] for arm in arms},
            options,
            iterations=ITERATIONS,
            recipe=Recipe(loss=loss),
            regularizers={arm: REGULARIZER_ARMS[arm][1] for arm in arms},
        )
        for loss, arms in arms_of.items()
    )


def outcome(results: Sequence[StudyResult], options: Options) -> Outcome:
    """An overview in the paper's layout, a table for each loss, and sentences."""
    first = results[0]
    return Outcome(
        name="table3",
        title="Table III, scaled down: DAT beside other regularizers on nine Gaussians",
        quick=True,
        command=command("table3", options),
        protocol=(
            *protocol(replace(first, diverged={})),
            "Numbers in the arms' names are the weights of their terms. Every arm is trained with every loss but those "
            "on a sigmoid, which have four arms.",
            *(f"Left out: {message}, with {_loss(r)}." for r in results for message in r.diverged.values()),
        ),
        tables=(*(_overview(results, what) for what in ("modes", "KL")), *map(_table, results)),
        findings=tuple(_findings(results)),
        notes=_NOTES,
        config=settings_as_dict(first) | {"recipe": _recipe(first), "losses": [_loss(r) for r in results]},
        details={"losses": {_loss(result): arms_as_dict(result) for result in results}},
        seconds=sum(result.seconds for result in results),
        origin=joined(result.origin for result in results),
    )


def _loss(result: StudyResult) -> str:
    return result.study.recipe.loss


def _recipe(result: StudyResult) -> dict[str, Any]:
    recipe: dict[str, Any] = settings_as_dict(result)["recipe"]
    return {name: value for name, value in recipe.items() if name != "loss"}


def _overview(results: Sequence[StudyResult], what: str) -> ResultTable:
    """One of ``MEASURES`` in the paper's layout, losses by methods, beside the paper's row."""
    names = [name for name in ARMS if any(name in result.study.arms for result in results)]
    rows = []
    for result in results:
        found: dict[str, Value] = {arm.name: over_mixtures(arm.last, what) for arm in result.arms}
        printed = {name: fid for name, fid in _printed(_loss(result)).items() if name in result.study.arms}
        rows.append(Row(_loss(result), found | dict.fromkeys(result.diverged, DIVERGED), printed))
    return ResultTable(
        f"{'Modes found' if what == 'modes' else what}, each run's mean of both mixtures, beside the paper's train FID",
        "loss",
        tuple(Column(name, MEASURES[what]) for name in names),
        tuple(rows),
        tuple(Column(name, 2) for name in names if ARMS[name] is not None),
    )


def _table(result: StudyResult) -> ResultTable:
    printed = _printed(_loss(result))
    paper = {name: {_PAPER_COLUMN: fid} for name, fid in printed.items()}
    return ResultTable(
        f"Loss {_loss(result)}, after the last iteration",
        "arm",
        columns(result.study.mixtures),
        last_rows(result, paper),
        (Column(_PAPER_COLUMN),),
    )


def _printed(loss: str) -> dict[str, float]:
    """The paper's train FID with a loss, with or without a sigmoid, by the names of our arms."""
    row = TABLE_III[loss.removesuffix("-sigmoid")]
    return {arm: row[column] for arm, column in ARMS.items() if column is not None}


# --- sentences -------------------------------------------------------------------------------------------------------


def _findings(results: Sequence[StudyResult]) -> Iterator[str]:
    """For each loss where DAT stands among the others, and how the paper's order agrees with ours."""
    orders = {_loss(result): [arm.name for arm in _by_kl(result)] for result in results}
    told = [
        f"{order.index('DAT') + 1} of {len(order)} with {loss}"
        for loss, order in orders.items()
        if "DAT" in order and len(order) > 1
    ]
    if len(told) > 1:
        yield f"DAT's place by KL: {', '.join(told)}."
    for result in results:
        yield from _place_of_dat(result)
    correlations = {_loss(result): _rank_correlation(result) for result in results}
    known = [f"{value:+.2f} ({loss})" for loss, value in correlations.items() if value is not None]
    if known:
        yield (
            "Rank correlation of our KL with the paper's train FID over the methods that both have; 1 is the same "
            f"order, 0 none: {', '.join(known)}."
        )


def _place_of_dat(result: StudyResult) -> Iterator[str]:
    arms = {arm.name: arm for arm in result.arms}
    order = _by_kl(result)
    if "DAT" not in arms or len(arms) < 2:
        return
    place, without = order.index(arms["DAT"]) + 1, arms.get("none")
    beside = "" if without is None else f", beside {arm_words(without)}"
    said = [f"{_loss(result)}: {arm_words(arms['DAT'])} has place {place} of {len(order)} by KL{beside}."]
    if place > 1:
        said.append(f"The lowest KL is that of {arm_words(order[0])}.")
    blurred = "; ".join(arm.name for arm in result.arms if _blurs(arm, arms["DAT"]))
    if blurred:
        said.append(
            f"About as many modes as DAT (at most {_MODES_MARGIN:g} fewer) or more, but of lower quality: {blurred}."
        )
    yield " ".join(said)


def _by_kl(result: StudyResult) -> list[Arm]:
    """The arms, the one of the lowest KL first."""
    return sorted(result.arms, key=lambda arm: mean(arm.last, "KL"))


def _blurs(arm: Arm, dat: Arm) -> bool:
    covers = mean(arm.last, "modes") > mean(dat.last, "modes") - _MODES_MARGIN
    return covers and mean(arm.last, "quality") < mean(dat.last, "quality") - _QUALITY_MARGIN


def _rank_correlation(result: StudyResult) -> float | None:
    """Of our KL with the paper's train FID; None where too few methods have both."""
    arms = {arm.name: arm for arm in result.arms}
    printed = {name: fid for name, fid in _printed(_loss(result)).items() if name in arms}
    ours = _ranks([mean(arms[name].last, "KL") for name in printed])
    if len(printed) <= 3 or len(set(ours)) < 2:  # equal values have no order
        return None
    return statistics.correlation(ours, _ranks(list(printed.values())))


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each value in ascending order; equal values share the mean of their places."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]
