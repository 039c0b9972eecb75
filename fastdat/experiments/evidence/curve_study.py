"""A study of curves: several seeds of each arm, each scored several times while it trains.

A run that has ended leaves small files in ``finished``, see :mod:`fastdat.experiments.evidence.finished_runs`, and is
not trained again where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fastdat.data import ImageSet
from fastdat.experiments.catalogue import Options
from fastdat.experiments.evidence.curve_groups import Group
from fastdat.experiments.evidence.finished_runs import FINISHED, FinishedRuns
from fastdat.experiments.images.image_study import Arm, Trained, arms_wanted, train_all

QUICK_STEPS, QUICK_SCORES, QUICK_SEEDS = 200, 4, 2


@dataclass(frozen=True)
class CurveStudy:
    """Groups of arms, trained alike and compared by the curves of their scores.

    Args:
        name: in ``fastdat reproduce NAME``.
        title: of its page.
        groups: of arms with different names, whose runs are equally long and scored alike.
        seeds: runs of each arm, unless ``Options.seeds`` says otherwise.
    """

    name: str
    title: str
    groups: tuple[Group, ...]
    seeds: int

    def train(
        self, options: Options, folder: Path, *, images: ImageSet | None = None
    ) -> dict[str, tuple[Trained, ...]]:
        """The runs of each wanted arm by its name, in the order of their seeds; what is not finished is trained.

        All arms of a seed are trained before the next seed, so that what was reached compares all arms.

        Args:
            options: ``quick`` shortens the runs: they only show that everything works.
            folder: of the study.
            images: as in :func:`fastdat.experiments.images.image_study.train_all`.

        Raises:
            ConfigError, DataError, RunFolderError, KeyboardInterrupt: as there; also where ``folder`` holds finished
                runs with other settings.
        """
        arms, seeds = self.arms(options), self.seeds_of(options)
        finished = FinishedRuns(folder / FINISHED)
        known = {
            (arm.name, seed) for arm in arms for seed in range(seeds) if finished.read(arm, seed) is not None
        }
        by_name = {arm.name: arm for arm in arms}
        train_all(
            arms,
            seeds,
            replace(options, compile=options.compile and not options.quick),  # compiling would take longest
            folder,
            images=images,
            seed_by_seed=True,
            finished=known,
            ended=lambda run: finished.write(by_name[run.arm], run),
        )
        return {arm.name: self._runs(finished, arm, seeds) for arm in arms}

    def arms(self, options: Options) -> tuple[Arm, ...]:
        """The arms that ``options`` want, of the length that they want."""
        whole = [arm for group in self.groups for arm in group.arms]
        arms = [_shortened(arm) for arm in whole] if options.quick else whole
        return arms_wanted(arms, options.only)

    def seeds_of(self, options: Options) -> int:
        """How many runs each arm has."""
        return options.seeds or (QUICK_SEEDS if options.quick else self.seeds)

    def _runs(self, finished: FinishedRuns, arm: Arm, seeds: int) -> tuple[Trained, ...]:
        found = (finished.read(arm, seed) for seed in range(seeds))
        return tuple(run for run in found if run is not None)


def _shortened(arm: Arm) -> Arm:
    changes: Mapping[str, int] = {
        "steps": QUICK_STEPS,
        "eval.every": QUICK_STEPS // QUICK_SCORES,
        "sample_every": QUICK_STEPS,
        "checkpoints.every": QUICK_STEPS // QUICK_SCORES,
    }
    return Arm(arm.name, arm.config.replace(dict(changes)))
