"""A study of curves: several seeds of each arm, each scored several times while it trains.

A run that has ended leaves small files in ``finished``, or ``finished-quick`` if it only shows that everything works,
see :mod:`fastdat.experiments.evidence.finished_runs`, and is not trained again where they are.

Here and in the files beside this one a run's score is the mean of its scores in the second half of its training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.evidence import run_cost
from fastdat.experiments.evidence.curve_figures import SweepLines, draw_curves, draw_samples, draw_sweep
from fastdat.experiments.evidence.curve_groups import Group
from fastdat.experiments.evidence.curve_numbers import TOLD_APART, late, median_run
from fastdat.experiments.evidence.curve_tables import costs, findings, over_training, scores
from fastdat.experiments.evidence.finished_runs import FinishedRuns, check_scored_alike
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, Trained, arms_wanted, train_all
from fastdat.experiments.images.thin_runs import thin_protocol
from fastdat.experiments.keep_results import FINISHED
from fastdat.experiments.outcome import Outcome, ResultTable

QUICK_STEPS, QUICK_SCORES, QUICK_SEEDS = 200, 4, 2

_NOTES = (
    "docs/evidence.md is the protocol. It was committed before the runs.",
    "Thin nets, short runs and a small extractor: the numbers compare these arms with each other. They say nothing "
    "about the size of an effect at the paper's widths and 100,000 steps.",
    "The strengths of R1, R2 and LP are those of their sources, or what helped on points; they were not tuned on "
    "images, and neither was DAT's.",
    "Another number of CPU threads changes the rounding, and with it a single run by as much as another seed does. "
    "Means over seeds are what can be compared.",
    "The minutes below are the sum over all runs, which may have shared the machine or been paused.",
)


@dataclass(frozen=True)
class CurveStudy:
    """Groups of arms, trained alike and compared by the curves of their scores.

    Args:
        name: in ``fastdat reproduce NAME``.
        title: of its page.
        groups: of arms with different names, whose runs are equally long and scored alike.
        seeds: runs of each arm, unless ``Options.seeds`` says otherwise.
        sweep: how its arms lie along a setting. Such a page has a figure of that, and neither samples nor costs.
    """

    name: str
    title: str
    groups: tuple[Group, ...]
    seeds: int
    sweep: SweepLines | None = None

    def run(self, options: Options, folder: Path) -> Outcome:
        """Train what is not finished, and compare the arms; as an experiment of the catalogue.

        What a run costs is measured by a call in full length, compiled and without ``only``, once all runs are
        finished: runs that share the machine with others tell nothing about time.
        """
        arms, seeds = self.arms(options), self.seeds_of(options)
        found = self.train(options, folder)
        names = [arm.name for arm in arms]
        groups = [left for group in self.groups if (left := group.only(names)) is not None]
        first = arms[0].config
        return Outcome(
            name=self.name,
            title=self.title + (", only tried out" if options.quick else ""),
            quick=options.quick,
            command=texts.command(self.name, options, seeds),
            protocol=(
                thin_protocol(first, (first.model or "").upper()),
                f"{seeds} seed{'s' * (seeds > 1)} of each arm. Scored every {first.eval.every:,} steps, from a running "
                f"average of G (decay {first.ema:g} a step). A run's score is the mean over the second half of its "
                f"training. Two arms are told apart where their means differ by {TOLD_APART:g} standard errors of a "
                "difference or more (Welch). Bands of figures are one standard deviation over seeds"
                + (
                    ", and samples are those of the run whose score is the median."
                    if self.sweep is None
                    else "."
                ),
            ),
            tables=(*self._tables(found, groups, options, folder), *texts.divergences(found)),
            findings=tuple(findings(found, groups)),
            notes=(*_NOTES, *_mixed(found)),
            config=texts.settings(arms, seeds),
            details=texts.details(found),
            origin=texts.origin(found),
            figures=self._figures(found, groups, self._finished(options, folder)),
            seconds=sum(run.stats[-1]["seconds"] for runs in found.values() for run in runs if run.stats),
        )

    def _tables(
        self, found: texts.Found, groups: list[Group], options: Options, folder: Path
    ) -> list[ResultTable]:
        tables = [scores(found, groups), over_training(found, every=2)]
        if self.sweep is None and options.compile and not options.quick and not options.only:
            arms = [arm for group in groups for arm in group.arms]
            cost = run_cost.measured(arms, options, folder / FINISHED)
            tables.append(costs(cost, found, groups, arms[0].config.steps))
        return tables

    def _figures(self, found: texts.Found, groups: list[Group], finished: FinishedRuns) -> dict[str, Figure]:
        figures = {"": draw_curves(found, groups)}
        if self.sweep is not None:
            return {"": draw_sweep(found, self.sweep), "-curves": figures[""]}
        pictures = {}
        for name, runs in found.items():
            run = median_run(runs)
            pixels = None if run is None else finished.samples(run)
            if run is not None and pixels is not None:
                pictures[f"{name}: seed {run.seed}, KID {late(run):.2f}"] = pixels
        return figures | ({"-samples": draw_samples(pictures)} if pictures else {})

    def train(self, options: Options, folder: Path) -> dict[str, tuple[Trained, ...]]:
        """The runs of each wanted arm by its name, in the order of their seeds; what is not finished is trained.

        All arms of a seed are trained before the next seed, so that what was reached compares all arms.

        Args:
            options: ``quick`` shortens the runs: they only show that everything works.
            folder: of the study.

        Raises:
            ConfigError, DataError, RunFolderError, KeyboardInterrupt: as
                :func:`fastdat.experiments.images.image_study.train_all`; also where ``folder`` holds finished runs with
                other settings, or some that were scored otherwise than the others.
        """
        arms, seeds = self.arms(options), self.seeds_of(options)
        finished = self._finished(options, folder)
        known = {
            (arm.name, seed) for arm in arms for seed in range(seeds) if finished.read(arm, seed) is not None
        }
        by_name = {arm.name: arm for arm in arms}
        train_all(
            arms,
            seeds,
            replace(options, compile=options.compile and not options.quick),  # compiling would take longest
            folder,
            seed_by_seed=True,
            finished=known,
            ended=lambda run: finished.write(by_name[run.arm], run),
        )
        found = {arm.name: self._runs(finished, arm, seeds) for arm in arms}
        check_scored_alike(run for runs in found.values() for run in runs)
        return found

    def arms(self, options: Options) -> tuple[Arm, ...]:
        """The arms that ``options`` want, of the length that they want."""
        whole = [arm for group in self.groups for arm in group.arms]
        arms = [_shortened(arm) for arm in whole] if options.quick else whole
        return arms_wanted(arms, options.only)

    def seeds_of(self, options: Options) -> int:
        """How many runs each arm has."""
        return options.seeds or (QUICK_SEEDS if options.quick else self.seeds)

    def _finished(self, options: Options, folder: Path) -> FinishedRuns:
        # Where quick runs took the place of whole ones, `make keep-results` would too.
        where = folder / (f"{FINISHED}-quick" if options.quick else FINISHED)
        return FinishedRuns(where, pictures=self.sweep is None)

    def _runs(self, finished: FinishedRuns, arm: Arm, seeds: int) -> tuple[Trained, ...]:
        found = (finished.read(arm, seed) for seed in range(seeds))
        return tuple(run for run in found if run is not None)


def _mixed(found: texts.Found) -> Iterator[str]:
    """That runs of a study were trained in different precisions; nothing if they were not."""
    trained = sorted({run.config.precision for runs in found.values() for run in runs})
    if len(trained) > 1:
        yield f'Not all runs were trained alike: precision "auto" was {" or ".join(trained)} by their device.'


def _shortened(arm: Arm) -> Arm:
    every = QUICK_STEPS // QUICK_SCORES
    changes = {"eval.every": every, "checkpoints.every": every, "sample_every": QUICK_STEPS}
    return Arm(arm.name, arm.config.replace({"steps": QUICK_STEPS, **changes}))
