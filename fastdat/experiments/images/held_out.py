"""Scores of trained runs against the test images, as the paper's released code makes them: from 10,000 fakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.image_study import MADE_FOR, TEST_FAKES, Trained, best_step, is_own, read
from fastdat.training.display import Lines
from fastdat.training.run_folder import append_metrics
from fastdat.training.trained import load_trained


def with_test_scores(
    runs: Sequence[Trained], options: Options, fakes: int = TEST_FAKES
) -> tuple[Trained, ...]:
    """The runs with FID and KID against all test images, of the last step and of the best step.

    The scores are added to each run's metrics.jsonl, as ``fastdat eval`` adds them but with a mark of their own; those
    that are there are not made again. A run that diverged is scored at its best step only.

    Args:
        runs: trained with scores against the training images.
        options: give the data and the device.
        fakes: generated images.

    Raises:
        ConfigError, DataError, RunFolderError: what is needed is missing.
    """
    return tuple(_scored(run, options, fakes) for run in runs)


def _scored(run: Trained, options: Options, fakes: int) -> Trained:
    settings: dict[str, Any] = {"eval.splits": ["test"], "eval.metrics": ["fid", "kid"], "eval.fakes": fakes}
    if options.data:
        settings["data"] = options.data
    best = best_step(run)
    wanted = {} if run.diverged else {"latest": run.config.steps}
    if best is not None and best not in wanted.values():
        wanted["best"] = best
    run = replace(run, test_fakes=fakes)
    made = {line["step"] for line in run.scores if is_own(line, run, "test")}
    for which, step in wanted.items():
        if step in made:
            continue
        Lines().note(f"{run.folder}: scoring step {step} against the test images")
        trained = load_trained(run.folder, which, device=options.device, settings=settings)
        for record in trained.evaluate() or []:
            append_metrics(run.folder, record | MADE_FOR)
    return replace(read(run.arm, run.folder, run.config), test_fakes=fakes)
