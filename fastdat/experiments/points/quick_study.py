"""What scaled-down experiments share: nets and training of Fig. 3, both mixtures, fewer iterations, one outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED, Mixture
from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Outcome, ResultTable
from fastdat.experiments.points.ensemble import Attack, Recipe
from fastdat.experiments.points.mixture_study import run_study
from fastdat.experiments.points.study import Study, StudyResult
from fastdat.experiments.points.study_record import arms_as_dict, settings_as_dict
from fastdat.experiments.points.study_tables import command, protocol
from fastdat.regularizers.term import Term
from fastdat.training.build import choose_device

#: Iterations of each GAN, and GANs of each arm and mixture unless ``Options.seeds`` says otherwise.
ITERATIONS, SEEDS = 2_500, 4
#: How often each arm is measured, at equal distances. A run that was stopped goes on from the latest measurement.
_PARTS = 5
MIXTURES = (BALANCED, IMBALANCED)
#: DAT with its default settings; points have no range.
DAT = DATConfig(bounds=None)
NO_ATTACK = replace(DAT, real=False, fake=False)


def quick_study(
    name: str,
    arms: Mapping[str, Attack],
    options: Options,
    *,
    iterations: int | None = None,
    seeds: int | None = None,
    mixtures: tuple[Mixture, ...] = MIXTURES,
    recipe: Recipe | None = None,
    regularizers: Mapping[str, tuple[Term, ...]] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> Study:
    """A study of ``arms``; the other arguments are as in :class:`fastdat.experiments.points.study.Study`.

    ``seeds`` counts where ``options`` give none.
    """
    iterations = iterations or ITERATIONS
    return Study(
        name=name,
        arms=arms,
        mixtures=mixtures,
        seeds=options.seeds or seeds or SEEDS,
        iterations=iterations,
        measurements=tuple(sorted({round(iterations * k / _PARTS) for k in range(1, _PARTS + 1)} - {0})),
        checkpoints=(iterations,),
        recipe=recipe or Recipe(),
        regularizers=regularizers or {},
        recipes=recipes or {},
    )


def run_quick(study: Study, options: Options, folder: Path) -> StudyResult:
    """Train and measure, or go on where an earlier run in ``folder`` stopped; an arm that diverges is left out."""
    device = choose_device(options.device)
    return run_study(study, device, options.compile, folder, leave_out_diverged=True)


def quick_outcome(
    result: StudyResult,
    options: Options,
    *,
    title: str,
    about: str,
    tables: Iterable[ResultTable],
    findings: Iterable[str],
    notes: tuple[str, ...],
    figure: Figure | None,
) -> Outcome:
    """What came out of an experiment that is one study.

    Args:
        result: of the study, which is called as the experiment.
        options: it was run with.
        about: the last paragraph of the protocol, on what is this experiment's own.
        title, tables, findings, notes: as in :class:`Outcome`.
        figure: the only one; None where nothing was trained that it could show.
    """
    return Outcome(
        name=result.study.name,
        title=title,
        quick=options.quick,
        command=command(result.study.name, options),
        protocol=(*protocol(result), about),
        tables=tuple(tables),
        findings=tuple(findings),
        notes=notes,
        config=settings_as_dict(result),
        details={"arms": arms_as_dict(result)},
        figures={} if figure is None else {"": figure},
        seconds=result.seconds,
        origin=result.origin,
    )
