"""Table IV: DAT at three places of the training. Scaled down: nine Gaussians in place of SNGAN on CIFAR-10.

The paper gives the places, eps 1 and one attack step. It does not say how position (iii), the attack in G's step,
passes a gradient, so every row with it is trained with two wirings of ``fastdat.generator_step``. With ``pass`` the
change is a constant that the gradient passes by; with ``cut`` the gradient ends there, so that G learns nothing. The
third wiring, ``second_order``, gives the numbers of ``pass`` here, bit for bit: D is piecewise linear, so its input
gradient does not change where a sample moves a little. Ours: nets, training and data of Fig. 3, and both scales of eps:
divided by 64, as in fastdat's default and the released code, and as it stands in Eq. 10.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fastdat.config import DATConfig
from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import TABLE_IV, TABLE_IV_SCORES, PositionRow
from fastdat.experiments.points.ensemble import Ensemble, Recipe
from fastdat.experiments.points.mixture_study import one_thread
from fastdat.experiments.points.points_figure import draw_arms
from fastdat.experiments.points.quick_study import DAT, quick_outcome, quick_study, run_quick
from fastdat.experiments.points.study import MEASURED, Arm, Study, StudyResult
from fastdat.experiments.points.study_tables import (
    NOT_COMPARABLE,
    cells,
    chosen,
    columns,
    last_cells,
    mean,
    measures_words,
)
from fastdat.metrics.modes import coverage

Wiring = Literal["none", "pass", "cut"]

WIRINGS: tuple[Wiring, ...] = ("pass", "cut")
#: Title -> DAT with this scale of eps.
SCALES: dict[str, DATConfig] = {"eps / 64": DAT, "eps unscaled": replace(DAT, eps_batch=1)}
_UNTRAINED, _BASELINE = "G untrained", "Baseline"
_IN_D = ("Real only", "Fake only", "Discriminator only")
#: An arm is no better than an untrained G where its quality exceeds that of one by no more than this.
_MARGIN = 0.05
_PAPER_COLUMNS = tuple(Column(name, 4 if "KID" in name else 2) for name in TABLE_IV_SCORES)
_NOTES = (
    'The paper\'s "Generator only" (FID 309, IS 1.59) and "All" (FID 292, IS 1.62) are, at the best checkpoint of each '
    "run, about what an untrained G would score (our reading; not measured). The released code makes its attacked "
    "images as new variables, which cuts the graph; used so in G's step, G gets no gradient. That is the wiring `cut`. "
    'The text fits this: it says that adversarial training "breaks the gradient" (Sec. V-C).',
    "With `cut` G stays as it was initialised whatever D does. Those rows say nothing about DAT in G's step.",
    "The wiring `second_order` of `fastdat.generator_step` is left out: on these nets it gives the numbers of `pass`, "
    "bit for bit, since D is piecewise linear and its input gradient does not change where a sample moves a little.",
    NOT_COMPARABLE,
)


@dataclass(frozen=True)
class Position:
    """An arm.

    Args:
        row: of Table IV.
        wiring: of position (iii).
        scale: a key of ``SCALES``.
    """

    row: PositionRow
    wiring: Wiring
    scale: str

    @property
    def label(self) -> str:
        """The row's name, with the wiring where there is one."""
        return self.row.name if self.wiring == "none" else f"{self.row.name}, {self.wiring}"

    @property
    def attack(self) -> DATConfig:
        """Of D's step."""
        return replace(SCALES[self.scale], real=self.row.real, fake=self.row.fake)

    @property
    def recipe(self) -> Recipe:
        """With the attack of G's step."""
        return Recipe(dat_generator=self.wiring)

    @property
    def eps_matters(self) -> bool:
        """Whether there is an attack whose gradient reaches a net."""
        return self.row.real or self.row.fake or self.wiring not in ("none", "cut")


def _positions() -> Iterator[tuple[str, Position]]:
    for scale in SCALES:
        for row in TABLE_IV.values():
            for wiring in WIRINGS if row.generator else ("none",):
                position = Position(row, wiring, scale)
                first = scale == next(iter(SCALES))
                if position.eps_matters or first:  # others are trained once, for both scales
                    yield f"{position.label}, {scale}", position


#: What is compared, by the names of arms.
POSITIONS: dict[str, Position] = dict(_positions())


def run(options: Options, folder: Path) -> Outcome:
    """Train and measure, or go on; in full length, SNGAN on CIFAR-10."""
    if not options.quick:
        from fastdat.experiments.images import table4_images

        return table4_images.run_table4(options, folder)
    return outcome(run_quick(study(options), options, folder), options)


def study(options: Options) -> Study:
    """What is trained and measured."""
    positions = chosen(POSITIONS, options.only)
    return quick_study(
        "table4",
        {name: position.attack for name, position in positions.items()},
        options,
        recipes={name: position.recipe for name, position in positions.items()},
    )


def outcome(result: StudyResult, options: Options) -> Outcome:
    """A table for each scale of eps, sentences and a figure."""
    chance = untrained(result)
    tables = [_table(scale, result, chance) for scale in SCALES]
    shown = [arm for arm in result.arms if POSITIONS[arm.name].scale == next(iter(SCALES))]
    mixtures = result.study.mixtures
    titles = [POSITIONS[arm.name].label for arm in shown]
    return quick_outcome(
        result,
        options,
        title="Table IV, scaled down: DAT at three places of the training, on nine Gaussians",
        about="DAT with its default settings: eps 1, one step. `pass`, `cut`: how the gradient of G's "
        "step passes its attack, which aims at the reals of the iteration's D step. The last row is G as it was "
        "initialised. `Baseline` and `Generator only, cut` do not depend on eps and stand in both tables. The "
        "figure: eps / 64, points of seed 0 from equal z.",
        tables=[table for table in tables if len(table.rows) > 1],
        findings=(*_untrained_words(result.arms, chance), *_place_words(result.arms)),
        notes=_NOTES,
        figure=draw_arms(shown, mixtures, titles=titles) if shown else None,
    )


def untrained(result: StudyResult) -> dict[str, Runs]:
    """The cells of generators with their initial weights, measured as those of the arms."""
    study = result.study
    with one_thread():
        ensemble = Ensemble(study.mixtures, range(study.seeds), DAT, study.recipe, device=result.device)
        points = ensemble.sample(MEASURED).cpu()
    found = {m.name: coverage(x, m) for m, x in zip(study.mixtures, points, strict=True)}
    return cells(found)


def _table(scale: str, result: StudyResult, chance: Mapping[str, Runs]) -> ResultTable:
    of_scale = [name for name in result.study.arms if POSITIONS[name].scale == scale]
    shared = [name for name in result.study.arms if not POSITIONS[name].eps_matters] if of_scale else []
    order = [position.label for position in POSITIONS.values()]
    names = sorted({*of_scale, *shared}, key=lambda name: order.index(POSITIONS[name].label))
    rows = [
        Row(POSITIONS[name].label, last_cells(result, name), POSITIONS[name].row.scores) for name in names
    ]
    return ResultTable(
        f"{scale}, after the last iteration",
        "DAT at",
        columns(result.study.mixtures),
        (*rows, *([Row(_UNTRAINED, chance)] if rows else [])),
        _PAPER_COLUMNS,
    )


def _untrained_words(arms: Sequence[Arm], chance: Mapping[str, Runs]) -> Iterator[str]:
    """Which arms with an attack in G's step have left G where it was."""
    level = statistics.fmean(runs.mean for name, runs in chance.items() if name.startswith("quality"))
    stays: list[str] = []
    no_better: list[str] = []
    better: list[str] = []
    for arm in arms:
        if not POSITIONS[arm.name].row.generator:
            continue
        quality = mean(arm.last, "quality")
        if cells(arm.last.coverage) == chance:
            stays.append(arm.name)
        elif quality <= level + _MARGIN:
            no_better.append(f"{arm.name} {quality:.2f}")
        else:
            better.append(f"{arm.name} {quality:.2f}")
    if stays or no_better or better:
        yield (
            f"An untrained G has quality {level:.2f}. Rows with position (iii) whose cells are exactly those of an "
            f"untrained G: {'; '.join(stays) or 'none'}. Other rows, of no better quality: "
            f"{'; '.join(no_better) or 'none'}. Of better quality: {'; '.join(better) or 'none'}."
        )


def _place_words(arms: Sequence[Arm]) -> Iterator[str]:
    """Modes, quality and KL of the places in D's step, and of those in G's step beside what they are added to."""
    found = {}
    for arm in arms:
        position = POSITIONS[arm.name]
        found[position.label, position.scale] = f"{position.label} ({measures_words(arm.last)})"
    baseline = next((words for (label, _), words in found.items() if label == _BASELINE), None)
    for scale in SCALES:
        in_d = [found[label, scale] for label in _IN_D if (label, scale) in found]
        if in_d:
            yield f"DAT in D's step, {scale}: {'; '.join([*in_d, *([baseline] if baseline else [])])}."
        for before, after in ((_BASELINE, "Generator only, pass"), ("Discriminator only", "All, pass")):
            without = baseline if before == _BASELINE else found.get((before, scale))
            if without and (after, scale) in found:
                yield f"DAT in G's step, {scale}: {without}; {found[after, scale]}."
