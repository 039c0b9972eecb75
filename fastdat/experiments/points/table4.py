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
from fastdat.experiments.points.mixture_study import run_study
from fastdat.experiments.points.points_figure import draw_arms
from fastdat.experiments.points.quick_study import DAT, quick_study
from fastdat.experiments.points.study import MEASURED, Arm, Study, StudyResult
from fastdat.experiments.points.study_record import arms_as_dict, settings_as_dict
from fastdat.experiments.points.study_tables import (
    NOT_COMPARABLE,
    cells,
    chosen,
    columns,
    command,
    mean,
    means_words,
    protocol,
)
from fastdat.metrics.modes import coverage
from fastdat.training.build import choose_device

Wiring = Literal["none", "pass", "cut"]

WIRINGS: tuple[Wiring, ...] = ("pass", "cut")
#: Title -> DAT with this scale of eps.
SCALES: dict[str, DATConfig] = {"eps / 64": DAT, "eps unscaled": replace(DAT, eps_batch=1)}
_UNTRAINED, _BASELINE = "G untrained", "Baseline"
_IN_D = ("Real only", "Fake only", "Discriminator only")
#: An arm is at chance where its quality exceeds that of an untrained G by no more than this.
_MARGIN = 0.05
_PAPER_COLUMNS = tuple(Column(name, 4 if "KID" in name else 2) for name in TABLE_IV_SCORES)
_NOTES = (
    'The paper\'s "Generator only" (FID 309, IS 1.59) and "All" (FID 292, IS 1.62) are what an untrained G scores, at '
    "the best checkpoint of each run. The released code makes its attacked images as new variables, which cuts the "
    "graph; used so in G's step, G gets no gradient. That is the wiring `cut`. The text agrees: it says that "
    'adversarial training "breaks the gradient" (Sec. V-C).',
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


def _positions() -> Iterator[tuple[str, Position]]:
    for scale in SCALES:
        for row in TABLE_IV.values():
            for wiring in WIRINGS if row.generator else ("none",):
                attacks = row.real or row.fake or wiring not in ("none", "cut")
                if attacks or scale == next(
                    iter(SCALES)
                ):  # without an attack that matters, eps has no effect
                    position = Position(row, wiring, scale)
                    yield f"{position.label}, {scale}", position


#: What is compared, by the names of arms.
POSITIONS: dict[str, Position] = dict(_positions())


def run(options: Options, folder: Path) -> Outcome:
    """Train and measure, or go on; in full length, SNGAN on CIFAR-10."""
    if not options.quick:
        from fastdat.experiments.images import table4_images

        return table4_images.run(options, folder)
    device = choose_device(options.device)
    result = run_study(study(options), device, options.compile, folder, leave_out_diverged=True)
    return outcome(result, options)


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
    chance = untrained(result.study)
    tables = [_table(scale, result, chance) for scale in SCALES]
    shown = [arm for arm in result.arms if POSITIONS[arm.name].scale == next(iter(SCALES))]
    mixtures = result.study.mixtures
    titles = [POSITIONS[arm.name].label for arm in shown]
    return Outcome(
        name="table4",
        title="Table IV, scaled down: DAT at three places of the training, on nine Gaussians",
        quick=True,
        command=command("table4", options),
        protocol=(
            *protocol(result),
            "DAT with its default settings: eps 1, one step. `pass`, `cut`: how the gradient of G's "
            "step passes its attack, which aims at the reals of the iteration's D step. The last row is G as it was "
            "initialised. The figure: eps / 64, points of seed 0 from equal z.",
        ),
        tables=tuple(table for table in tables if len(table.rows) > 1),
        findings=tuple(_findings(result.arms, chance)),
        notes=_NOTES,
        config=settings_as_dict(result),
        details={"arms": arms_as_dict(result)},
        figures={"": draw_arms(shown, mixtures, titles=titles)} if shown else {},
        seconds=result.seconds,
    )


def untrained(study: Study) -> dict[str, Runs]:
    """The cells of generators with their initial weights."""
    ensemble = Ensemble(study.mixtures, range(study.seeds), DAT, study.recipe)
    points = ensemble.sample(MEASURED)
    found = {m.name: coverage(x, m) for m, x in zip(study.mixtures, points, strict=True)}
    return cells(found)


def _table(scale: str, result: StudyResult, chance: Mapping[str, Runs]) -> ResultTable:
    rows = [
        Row(POSITIONS[arm.name].label, cells(arm.last.coverage), POSITIONS[arm.name].row.scores)
        for arm in result.arms
        if POSITIONS[arm.name].scale == scale
    ]
    return ResultTable(
        f"{scale}, after the last iteration",
        "DAT at",
        columns(result.study.mixtures),
        (*rows, *([Row(_UNTRAINED, chance)] if rows else [])),
        _PAPER_COLUMNS,
    )


def _findings(arms: Sequence[Arm], chance: Mapping[str, Runs]) -> Iterator[str]:
    level = statistics.fmean(runs.mean for name, runs in chance.items() if name.startswith("quality"))
    generator = [arm for arm in arms if POSITIONS[arm.name].row.generator]
    if generator:
        quality = {arm.name: mean(arm.last, "quality") for arm in generator}
        stay = "; ".join(name for name, value in quality.items() if value <= level + _MARGIN)
        leave = "; ".join(f"{name} {value:.2f}" for name, value in quality.items() if value > level + _MARGIN)
        yield (
            f"An untrained G has quality {level:.2f}. Rows with position (iii) that end there: {stay or 'none'}. Rows "
            f"that do not: {leave or 'none'}."
        )
    found = {
        (POSITIONS[arm.name].label, POSITIONS[arm.name].scale): means_words(arm.last, "modes") for arm in arms
    }
    baseline = next((modes for (label, _), modes in found.items() if label == _BASELINE), None)
    for scale in SCALES:
        in_d = {label: found[label, scale] for label in _IN_D if (label, scale) in found}
        if in_d:
            listed = ", ".join(f"{label} {modes}" for label, modes in in_d.items())
            yield f"Modes found with DAT in D's step, {scale}: {listed}{f'; Baseline {baseline}' if baseline else ''}."
        for before, after in ((_BASELINE, "Generator only, pass"), ("Discriminator only", "All, pass")):
            modes = baseline if before == _BASELINE else found.get((before, scale))
            if modes and (after, scale) in found:
                yield f"Modes found, {scale}: {before} {modes}; {after} {found[after, scale]}."
