"""Fig. 7: the number of attack steps K, at two levels eps. Scaled down: nine Gaussians in place of SNGAN on CIFAR-10.

The paper gives K from 1 to 5, eps 0.6 and 1, two runs of each, and that the best one is K = 2 with eps 0.6 (Sec. V-B).
Ours: nets, training and data of Fig. 3, four runs for each mixture, eps divided by 64, and that each of the K steps has
size eps. The paper does not say whether eps is that of one step or of all together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Outcome, ResultTable
from fastdat.experiments.paper_tables import FIG7_BEST, FIG7_EPS, FIG7_STEPS
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
#: eps and K by the names of arms.
SETTINGS = {f"eps {eps:g}, K {steps}": (eps, steps) for eps in FIG7_EPS for steps in FIG7_STEPS}
_NOTES = (
    "The paper's figure shows the train FID of SNGAN on CIFAR-10, two runs of each point. Its text says that several "
    "steps help more with eps 0.6, that the FID gets worse with K at eps 1, and that eps "
    f"{FIG7_BEST[0]:g} with K = {FIG7_BEST[1]} is best. No FID of it is printed.",
    "With K steps of size eps a sample moves about K times as far, so K and eps are not independent settings.",
)


def run(options: Options, folder: Path) -> Outcome:
    """Train and measure, or go on; in full length, SNGAN on CIFAR-10."""
    if not options.quick:
        from fastdat.experiments.images import sngan_sweeps

        return sngan_sweeps.run_fig7(options, folder)
    return outcome(run_quick(study(options), options, folder), options)


def study(options: Options) -> Study:
    """What is trained and measured: an arm for each pair of eps and K, and one without attack."""
    attacks = {name: replace(DAT, eps=eps, steps=steps) for name, (eps, steps) in SETTINGS.items()}
    return quick_study("fig7", chosen({_WITHOUT: NO_ATTACK} | attacks, options.only), options)


def outcome(result: StudyResult, options: Options) -> Outcome:
    """Table, sentences and figure."""
    without = next((arm for arm in result.arms if arm.name == _WITHOUT), None)
    mixtures, sweeps = result.study.mixtures, _sweeps(result.arms)
    return quick_outcome(
        result,
        options,
        title="Fig. 7, scaled down: the number of attack steps on nine Gaussians",
        about="DAT with its default settings but for eps, which is divided by 64, and K steps of that size each.",
        tables=[ResultTable("After the last iteration", "setting", columns(mixtures), last_rows(result))],
        findings=_findings(sweeps, without),
        notes=_NOTES,
        figure=draw_sweeps(sweeps, mixtures, "number of attack steps K", without) if sweeps else None,
    )


def _sweeps(arms: Sequence[Arm]) -> list[Sweep]:
    """A sweep over K for each eps that was trained."""
    sweeps = []
    for eps in FIG7_EPS:
        here = [arm for arm in arms if arm.name in SETTINGS and SETTINGS[arm.name][0] == eps]
        if here:
            sweeps.append(Sweep(f"eps = {eps:g}", [SETTINGS[arm.name][1] for arm in here], here))
    return sweeps


def _findings(sweeps: Sequence[Sweep], without: Arm | None) -> Iterator[str]:
    for sweep in sweeps:
        series = ", ".join(f"{mean(arm.last, 'KL'):.2f}" for arm in sweep.arms)
        steps = ", ".join(f"{k:g}" for k in sweep.x)
        yield f"{sweep.title}, K = {steps}: KL {series}, mean of both mixtures."
    arms = [arm for sweep in sweeps for arm in sweep.arms]
    if len(arms) > 1:
        best = min(arms, key=lambda arm: mean(arm.last, "KL"))
        paper = f"eps {FIG7_BEST[0]:g}, K {FIG7_BEST[1]}"
        yield f"The lowest KL is at {arm_words(best)}; the paper's best FID is at {paper}."
    if without is not None:
        yield f"For comparison: {arm_words(without)}."
