"""The arms of a comparison on images: each seed of each arm is an ordinary run folder, trained by :class:`Trainer`.

A second call with the same folder goes on where the first was stopped: finished runs are read, the others resumed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastdat.data import ImageSet
from fastdat.data.load import check_is_there
from fastdat.experiments.arm_choice import chosen_names
from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.measured_settings import check_measured, note_measured
from fastdat.experiments.images.run_origin import note_origin, read_origin
from fastdat.experiments.outcome import Runs, Value
from fastdat.experiments.training_origin import Origin, here
from fastdat.metrics.evaluators import Evaluator
from fastdat.metrics.scores import BETTER
from fastdat.report.runs import is_number, read_runs
from fastdat.training.build import build_evaluator, build_trainer, choose_device, load_data
from fastdat.training.callbacks import Callback
from fastdat.training.config_file import recorded_config
from fastdat.training.device_settings import as_begun
from fastdat.training.display import display_for
from fastdat.training.models import dataset_of
from fastdat.training.resume import check_resumable
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import NonFiniteError
from fastdat.util.files import write_atomically

RUNS = "runs"
DIVERGED = "diverged.txt"
"""The file in a run folder that says that NaN or infinity ended the run, and which; such a run is not tried again."""

TEST_FAKES = 10_000
"""Generated images behind scores against the test images, as in the paper's released code."""
MADE_FOR = {"made_for": "reproduce"}
"""What marks a line of metrics.jsonl that an experiment has added; one that ``fastdat eval`` adds has no such mark."""

Score = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Args:
        name: in tables, and by :func:`slug` in the names of its run folders.
        config: of its runs. Data, seed, device and ``compile`` are filled in from the options.
    """

    name: str
    config: TrainConfig


@dataclass(frozen=True)
class Trained:
    """A run that has ended.

    Args:
        arm: the arm's name.
        seed: of weights, batches and noise.
        folder: the run folder.
        config: as it was trained.
        stats: the lines of stats.jsonl.
        scores: the lines of metrics.jsonl.
        diverged: NaN or infinity ended it before its last step.
        test_fakes: generated images behind its scores against the test images.
        origin: where it was trained, as far as the run folder knows it.
    """

    arm: str
    seed: int
    folder: Path
    config: TrainConfig
    stats: tuple[dict[str, Any], ...]
    scores: tuple[Score, ...]
    diverged: bool
    test_fakes: int = TEST_FAKES
    origin: Origin = field(default_factory=Origin)


def arms_wanted(
    arms: Sequence[Arm], only: Sequence[str], rule: Callable[[str, str], bool] | None = None
) -> tuple[Arm, ...]:
    """The arms that ``only`` chooses by their names, see :func:`fastdat.experiments.arm_choice.chosen_names`."""
    wanted = chosen_names([arm.name for arm in arms], only, rule)
    return tuple(arm for arm in arms if arm.name in wanted)


def train_all(
    arms: Sequence[Arm],
    seeds: int,
    options: Options,
    folder: Path,
    *,
    callbacks: Callable[[Arm], Sequence[Callback]] | None = None,
    measures: Mapping[str, Any] | None = None,
    images: ImageSet | None = None,
    also: Sequence[str] = (),
    seed_by_seed: bool = False,
    finished: Container[tuple[str, int]] = (),
    ended: Callable[[Trained], None] | None = None,
) -> dict[str, tuple[Trained, ...]]:
    """Train ``seeds`` runs of each arm in ``folder/runs``, or go on with those that are there.

    A run that NaN or infinity ends is noted, and the next one begins. A request to stop (Ctrl-C, SIGTERM) ends the
    whole experiment; the same call goes on later.

    Args:
        arms: of different names.
        seeds: runs of each arm, with the seeds 0, 1, ...
        options: give the data, the device and ``compile``.
        folder: of the experiment.
        callbacks: makes the own metrics of the runs of an arm, anew for each run.
        measures: all settings of the callbacks, by name, in types that JSON knows.
        images: the training images, if not those of ``options.data``.
        also: splits of the data that the caller needs after the training; they are looked for before it.
        seed_by_seed: train all arms of a seed before the next seed, and not all seeds of an arm before the next arm.
        finished: (arm, seed) of the runs that are left out, since their caller knows what they gave.
        ended: called with each run once it has ended, before the next one begins.

    Returns:
        The runs of each arm by its name, in the order of their seeds, without those left out.

    Raises:
        ConfigError, DataError, RunFolderError: as :func:`fastdat.training.load_data` and
            :func:`fastdat.training.build_trainer`; also where ``folder`` holds runs with other settings, those of their
            scores, their monitor and ``measures`` included.
        KeyboardInterrupt: the process was asked to stop.
    """
    folders = _run_folders(arms, folder)
    shared = _Shared(images)
    found: dict[str, list[Trained]] = {arm.name: [] for arm in arms}
    planned = [(arm, seed) for arm in arms for seed in range(seeds) if (arm.name, seed) not in finished]
    if seed_by_seed:
        planned.sort(key=lambda run: run[1])
    if images is None:
        _require_data([arm.config for arm, _ in planned], options, also)
    for number, (arm, seed) in enumerate(planned, 1):
        filled = {"seed": seed, "device": options.device, "compile": options.compile}
        config = arm.config.replace(filled | ({"data": options.data} if options.data else {}))
        run = Path(f"{folders[arm.name]}-{seed}")
        what = f"run {number} of {len(planned)}: {arm.name}, seed {seed}"
        check_measured(run, config, measures or {})
        _train(config, run, shared, () if callbacks is None else callbacks(arm), measures or {}, what)
        trained = read(arm.name, run, as_begun(config, recorded_config(run)))
        found[arm.name].append(trained)
        if ended is not None:
            ended(trained)
    return {name: tuple(runs) for name, runs in found.items()}


def read(arm: str, run: Path, config: TrainConfig) -> Trained:
    """What a run folder holds.

    Raises:
        ReportError: it is no run folder, or a file is damaged.
        RunFolderError: the file that holds where it was trained is damaged.
    """
    record = read_runs([run])[0]
    stats, scores = tuple(map(dict, record.stats)), tuple(map(dict, record.metrics))
    ended, origin = (run / DIVERGED).exists(), read_origin(run)
    return Trained(arm, config.seed, run, config, stats, scores, ended, origin=origin)


def slug(name: str) -> str:
    """``name`` as a part of a file's name: ``"LR 1e-3, DAT"`` -> ``"lr-1e-3-dat"``."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


# --- scores of runs --------------------------------------------------------------------------------------------------


def scores_of(
    runs: Sequence[Trained], score: str, split: str = "train", which: Literal["last", "best"] = "last"
) -> Value:
    """One score of several runs, as a cell of a table.

    Args:
        runs: of one arm.
        score: its key in metrics.jsonl: ``"fid"``, ``"kid"``, ``"is"``.
        split: of the reals; IS is the same for both.
        which: at the last step, or at the step of the best value of the first metric on the first split of
            ``config.eval``, as best.pt.

    Returns:
        The runs that have the score. One that NaN ended has no ``"last"`` score; ``"best"`` takes what it had reached.
        ``"diverged"`` if no run has the score for that reason, None if none was scored.
    """
    values = [value for run in runs if (value := score_at(run, score, split, which)) is not None]
    if values:
        return Runs(tuple(values))
    return "diverged" if any(run.diverged for run in runs) else None


def diverged(runs: Sequence[Trained]) -> str:
    """How many of ``runs`` NaN ended, as a cell: ``"1 of 3"``."""
    return f"{sum(run.diverged for run in runs)} of {len(runs)}"


def score_at(run: Trained, score: str, split: str, which: Literal["last", "best"]) -> float | None:
    """One score of one run; arguments as in :func:`scores_of`. If a step was scored twice, the later one counts.

    Scores that were made otherwise than this run's do not count: those that a later ``fastdat eval`` has added.
    """
    step = best_step(run) if which == "best" else run.config.steps
    of_step = [line for line in run.scores if line["step"] == step and is_own(line, run, split)]
    values = [line["scores"][score] for line in of_step if is_number(line["scores"].get(score))]
    return float(values[-1]) if values else None


def is_own(line: Score, run: Trained, split: str) -> bool:
    """Whether a line of metrics.jsonl is a score of this run against ``split`` as its experiment makes them.

    Against a split of ``config.eval`` that is a score of the training, with its extractor and its numbers of images;
    against another one, a line with the mark :data:`MADE_FOR` and ``run.test_fakes`` fakes.
    """
    scored = run.config.eval
    trained = split in scored.splits
    made = line.get("by") == "train" if trained else MADE_FOR.items() <= line.items()
    return (
        made
        and line.get("split") == split
        and line.get("extractor") == scored.extractor
        and line.get("weights") == ("ema" if run.config.ema else "G")
        and line.get("fake_count") == (scored.fakes if trained else run.test_fakes)
        and line.get("real_count", 0) <= scored.reals  # a smaller split is used whole
    )


def best_step(run: Trained) -> int | None:
    """The step whose checkpoint is best.pt; None if no finite score ranks the steps."""
    metric, split = run.config.eval.metrics[0], run.config.eval.splits[0]
    name = {"precision-recall": "precision"}.get(metric, metric)
    ranks = {
        line["step"]: BETTER[name] * line["scores"][name]
        for line in run.scores
        if is_own(line, run, split) and is_number(line["scores"].get(name))
    }
    return max(ranks, key=lambda step: ranks[step]) if ranks else None


# --- training --------------------------------------------------------------------------------------------------------


class _Shared:
    """Images and evaluator, which all runs on one data set share: neither is read or made once a run.

    Only those of the last data set are kept, since each may fill the memory.
    """

    def __init__(self, images: ImageSet | None) -> None:
        self._given = images
        self._of: Any = None
        self._images: ImageSet | None = None
        self._evaluator: Evaluator | None = None

    def of(self, config: TrainConfig) -> tuple[ImageSet | None, Evaluator | None]:
        key = (config.dataset, config.resolution, config.data, config.eval, config.model)
        if key != self._of:
            self._images = self._evaluator = None
            self._images = self._given if self._given is not None else load_data(config)
            if config.eval.every:
                names = () if self._images is None else self._images.classes
                device = choose_device(config.device)
                self._evaluator = build_evaluator(config, device, self._images, class_names=names)
            self._of = key
        return self._images, self._evaluator


def _require_data(configs: Sequence[TrainConfig], options: Options, also: Sequence[str]) -> None:
    """Look for all data sets and splits before the first training, unless it opens them all; raises DataError."""
    wanted = {(dataset_of(c), c.resolution, s) for c in configs for s in ("train", *c.eval.splits, *also)}
    if options.data and (also or len({dataset for dataset, *_ in wanted}) > 1):
        for dataset, resolution, split in sorted(wanted):
            check_is_there(dataset, options.data, split, resolution)


def _train(
    config: TrainConfig,
    run: Path,
    shared: _Shared,
    callbacks: Sequence[Callback],
    measures: Mapping[str, Any],
    what: str,
) -> None:
    display = display_for(config.steps)
    display.note(what)
    if (run / DIVERGED).exists():
        check_resumable(run, recorded_config(run).to_dict(), config, done=0)  # refuses other settings
        display.note(f"it has diverged; remove {run} to train it again")
        return
    images, evaluator = shared.of(config)
    trainer = build_trainer(config, images, run, evaluator=evaluator, callbacks=callbacks, display=display)
    note_measured(run, config, measures)
    if trainer.done < config.steps:
        note_origin(run, here(choose_device(config.device)))
    try:
        trainer.train()
    except NonFiniteError as error:
        write_atomically(run / DIVERGED, f"{error}\n".encode())  # the log has it, too
        display.note(f"{error}\n{what}: diverged; its records up to here are kept")


def _run_folders(arms: Sequence[Arm], folder: Path) -> dict[str, Path]:
    """The path of each arm's runs without the seed."""
    slugs = Counter(slug(arm.name) for arm in arms)
    twice = [name for name, count in slugs.items() if count > 1]
    if twice:
        raise ValueError(f"two arms would have the run folders {', '.join(twice)}: give them other names")
    return {arm.name: folder / RUNS / slug(arm.name) for arm in arms}
