"""Fig. 6: the perturbation level eps. Scaled down: nine Gaussians in place of SNGAN on CIFAR-10.

The paper gives the nine levels, two runs of each, and that the best one is around 0.6 (Sec. V-A). Ours: nets, training
and data of Fig. 3, four runs for each mixture, and eps divided by 64 as in fastdat's default.

Each level is trained by itself, eight GANs at once, and not all 72 GANs of the nine levels in one stack: eps is a
constant of the compiled step, which would have to become a tensor of the engine. One stack would save little: an
iteration of eight GANs takes 8.1 ms of one CPU core and one of 72 takes 58 ms (measured), 0.80 of nine times 8.1 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Outcome, ResultTable
from fastdat.experiments.paper_tables import FIG6_BEST_EPS, FIG6_EPS
from fastdat.experiments.points.quick_study import DAT, NO_ATTACK, quick_outcome, quick_study, run_quick
from fastdat.experiments.points.study import Arm, Study, StudyResult
from fastdat.experiments.points.study_tables import (
    arm_words,
    chosen,
    columns,
    last_rows,
    mean,
)
from fastdat.experiments.points.sweep_figure import Sweep, draw_sweeps

_WITHOUT = "no attack"
#: eps by the names of arms.
EPS = {f"eps {eps:g}": eps for eps in FIG6_EPS}
_NOTES = (
    "The paper's figure shows the train FID of SNGAN on CIFAR-10, two runs of each level, and its text calls eps "
    f"{FIG6_BEST_EPS:g} the best. No FID of it is printed.",
    "An eps says nothing without its scale: the change of a sample is eps times a gradient, so it depends on the net "
    "and the data. The released code divides eps by the batch size, Eq. 10 does not.",
)


def run(options: Options, folder: Path) -> Outcome:
    """Train and measure, or go on; in full length, SNGAN on CIFAR-10."""
    if not options.quick:
        from fastdat.experiments.images import sngan_sweeps

        return sngan_sweeps.run_fig6(options, folder)
    return outcome(run_quick(study(options), options, folder), options)


def study(options: Options) -> Study:
    """What is trained and measured: an arm for each level, and one without attack."""
    arms = {_WITHOUT: NO_ATTACK} | {name: replace(DAT, eps=eps) for name, eps in EPS.items()}
    return quick_study("fig6", chosen(arms, options.only), options)


def outcome(result: StudyResult, options: Options) -> Outcome:
    """Table, sentences and figure."""
    levels = [arm for arm in result.arms if arm.name in EPS]
    without = next((arm for arm in result.arms if arm.name == _WITHOUT), None)
    mixtures = result.study.mixtures
    sweep = Sweep("", [EPS[arm.name] for arm in levels], levels)
    table = ResultTable(
        "After the last iteration", "perturbation level", columns(mixtures), last_rows(result)
    )
    return quick_outcome(
        result,
        options,
        title="Fig. 6, scaled down: the perturbation level on nine Gaussians",
        about="DAT with its default settings but for eps, which is divided by 64.",
        tables=[table],
        findings=_findings(levels, without),
        notes=_NOTES,
        figure=draw_sweeps([sweep], mixtures, "perturbation level eps", without) if levels else None,
    )


def _findings(levels: list[Arm], without: Arm | None) -> Iterator[str]:
    if len(levels) > 1:
        best, worst = (choose(levels, key=lambda arm: mean(arm.last, "KL")) for choose in (min, max))
        yield f"The lowest KL is at {arm_words(best)}; the paper's best FID is around eps {FIG6_BEST_EPS:g}."
        yield f"The highest KL is at {arm_words(worst)}."
    if levels and without is not None:
        better = [arm.name for arm in levels if mean(arm.last, "KL") < mean(without.last, "KL")]
        yield (
            f"{len(better)} of {len(levels)} levels have a lower KL, mean of both mixtures, than "
            f"{arm_words(without)}."
        )
