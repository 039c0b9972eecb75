"""Finished runs as small files: a JSON of a few kilobytes with settings and scores, and a PNG of samples.

A page is made of them, and of what :mod:`fastdat.experiments.evidence.run_cost` has measured. So the run folders, with
their checkpoints, may be removed, and runs that were trained on several machines or on several days become one study
by copying these files into one folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdat.experiments.evidence.curve_numbers import curve
from fastdat.experiments.images.grid_pairs import samples_of
from fastdat.experiments.images.image_study import RUNS, Arm, Trained, slug
from fastdat.experiments.images.measured_settings import differences
from fastdat.experiments.training_origin import Origin
from fastdat.training.device_settings import AUTOMATIC
from fastdat.training.png import grid_png
from fastdat.training.train_config import TrainConfig
from fastdat.util import plain_json
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.files import write_atomically
from fastdat.util.settings import flat_settings

SHOWN, COLUMNS = 32, 8
"""Samples in the PNG of a run, and how many of them are in a row."""

_ELSEWHERE = ("data", "seed", "device", "compile")
"""Settings that an arm leaves open: the options and the seed fill them in, and none of them changes the protocol."""
_ALIKE = ("data_sha256", "extractor_sha256", "resize", "kid_subsets", "kid_subset_size")
"""What all scores of a study have in common, beside the settings of its arms."""


class FinishedRuns:
    """The finished runs of a study.

    Args:
        folder: of their files; made when the first one is written.
        pictures: write samples too.
    """

    def __init__(self, folder: Path, *, pictures: bool = True) -> None:
        self._folder, self._pictures = folder, pictures

    def read(self, arm: Arm, seed: int) -> Trained | None:
        """A run; None if it is not finished. Its ``config`` is the one it was trained with.

        Raises:
            ConfigError: it was trained or scored with other settings than the arm has now. Settings that did not exist
                then count as their defaults.
            RunFolderError: its file is damaged, lacks a score, or is that of another run.
        """
        file = self._file(arm.name, seed, "json")
        try:
            found = plain_json.loads(file.read_bytes())
            config, computed = dict(found["config"]), dict(found["computed"])
            scores, last = tuple(map(dict, found["scores"])), dict(found["last"])
            origin = Origin(tuple(map(str, found["commits"])), tuple(map(str, found["machines"])))
            ended, whose = bool(found["diverged"]), (str(found["arm"]), int(found["seed"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{file} is damaged ({error!r}). Remove it to train the run again"
            ) from error
        if whose != (arm.name, seed):
            raise RunFolderError(
                f"{file} should hold {arm.name!r}, seed {seed}, but holds {whose[0]!r}, seed {whose[1]}: its name is "
                "wrong. Remove it"
            )
        self._check_settings(file, config, arm)
        trained = arm.config.replace({**computed, "seed": seed})
        folder = self._folder / file.stem
        stats = (last,) if last else ()
        run = Trained(arm.name, seed, folder, trained, stats, scores, ended, origin=origin)
        if missing := ", ".join(map(str, _unscored(run))):
            raise RunFolderError(
                f"{file} lacks the scores after steps {missing}. Remove it to train the run again"
            )
        return run

    def write(self, arm: Arm, run: Trained) -> None:
        """Write the files of a run of ``arm`` that has ended.

        Raises:
            OSError: they cannot be written.
            RunFolderError: the run has no last checkpoint.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # What a broken G makes says nothing.
        samples = samples_of(run, "cpu", SHOWN) if self._pictures and not run.diverged else None
        if samples is not None:
            self._write(run, "png", grid_png(samples, columns=COLUMNS))
        record = {
            "arm": run.arm,
            "seed": run.seed,
            "diverged": run.diverged,
            "scores": list(run.scores),
            "last": run.stats[-1] if run.stats else {},
            "computed": {key: getattr(run.config, key) for key in (*AUTOMATIC, "compile")},
            "config": _settings(arm.config),
            **asdict(run.origin),
        }
        # Last, since it says that the run is whole.
        self._write(run, "json", f"{json.dumps(record, indent=1)}\n".encode())

    def samples(self, run: Trained) -> Tensor | None:
        """The picture of a run's samples, uint8 (H, W, 3); None if there is none."""
        from PIL import Image

        file = self._file(run.arm, run.seed, "png")
        if not file.is_file():
            return None
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))

    def _check_settings(self, file: Path, config: Mapping[str, Any], arm: Arm) -> None:
        try:
            then = TrainConfig.from_dict(config)
        except ConfigError as error:
            raise ConfigError(f"{file} has settings that this version of fastdat refuses: {error}") from error
        if differing := differences(flat_settings(_settings(then)), flat_settings(_settings(arm.config))):
            raise ConfigError(
                f"{file} is a run with other settings: {differing}. Give another --outdir; or, to train it again, "
                f"remove this file and {self._folder.parent / RUNS / file.stem}"
            )

    def _write(self, run: Trained, kind: str, content: bytes) -> None:
        write_atomically(self._file(run.arm, run.seed, kind), content)

    def _file(self, arm: str, seed: int, kind: str) -> Path:
        return self._folder / f"{slug(arm)}-{seed}.{kind}"


def check_scored_alike(runs: Iterable[Trained]) -> None:
    """Refuse runs whose scores cannot stand beside each other.

    Raises:
        ConfigError: their scores come from other images, or from another extractor.
    """
    first: tuple[Trained, dict[str, Any]] | None = None
    for run in runs:
        for line in run.scores:
            scored = {key: line.get(key) for key in _ALIKE}
            if first is None:
                first = run, scored
            elif differing := differences(first[1], scored):
                raise ConfigError(
                    f"{run.arm}, seed {run.seed}, was scored otherwise than {first[0].arm}, seed {first[0].seed}: "
                    f"{differing}. Their files are {first[0].folder}.json and {run.folder}.json: score all runs of a "
                    "study against the same images, by the same extractor"
                )


def _unscored(run: Trained) -> list[int]:
    """The steps after which a run that reached its end should have been scored, and was not."""
    every = run.config.eval.every
    if run.diverged or not every:
        return []
    scored = curve(run)
    return [step for step in range(every, run.config.steps + 1, every) if step not in scored]


def _settings(config: TrainConfig) -> dict[str, Any]:
    """All settings of an arm in types that JSON knows, without those that it leaves open."""
    kept = {key: value for key, value in config.to_dict().items() if key not in _ELSEWHERE}
    found: dict[str, Any] = json.loads(json.dumps(kept))
    return found
