"""The study that scaled-down experiments share: nets and training of Fig. 3, both mixtures, fewer iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.catalogue import Options
from fastdat.experiments.points.ensemble import Attack, Recipe
from fastdat.experiments.points.study import Study
from fastdat.regularizers.term import Term

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
    recipe: Recipe | None = None,
    regularizers: Mapping[str, tuple[Term, ...]] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> Study:
    """A study of ``arms``; the other arguments are as in :class:`fastdat.experiments.points.study.Study`."""
    iterations = iterations or ITERATIONS
    return Study(
        name=name,
        arms=arms,
        mixtures=MIXTURES,
        seeds=options.seeds or SEEDS,
        iterations=iterations,
        measurements=tuple(sorted({round(iterations * k / _PARTS) for k in range(1, _PARTS + 1)} - {0})),
        checkpoints=(iterations,),
        recipe=recipe or Recipe(),
        regularizers=regularizers or {},
        recipes=recipes or {},
    )
