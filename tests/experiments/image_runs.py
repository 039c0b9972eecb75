"""Runs on images for tests of the experiments: tiny ones that are trained, and written ones with given scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastdat.data import ImageSet
from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.image_study import Arm, Trained
from fastdat.training import TrainConfig, preset

#: Settings of a run that takes a second, scored by the extractor "means" after steps 2 and 4.
TINY: dict[str, Any] = {
    "ngf": 4,
    "ndf": 4,
    "nz": 8,
    "batch_size": 4,
    "steps": 4,
    "log_every": 1,
    "sample_every": 100,
    "samples": 4,
    "logger": "none",
    "checkpoints.every": 1,
    "eval.every": 2,
    "eval.extractor": "means",
    "eval.metrics": ["kid"],
    "eval.splits": ["train"],
    "eval.fakes": 20,
    "eval.reals": 30,
}
OPTIONS = Options(compile=False, device="cpu")


def images(count: int = 40, size: int = 32, seed: int = 0) -> ImageSet:
    """Coloured noise in place of CIFAR-10."""
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draws)
    labels = torch.arange(count) % 10
    return ImageSet(
        f"cifar10 train, synthetic {seed}", pixels, labels, tuple(f"class {i}" for i in range(10))
    )


def tiny_arm(name: str, base: str = "dcgan-cifar10", **changes: Any) -> Arm:
    return Arm(name, preset(base).replace(TINY | changes))


def score(step: int, split: str = "train", **scores: float) -> dict[str, Any]:
    """A line of metrics.jsonl; :func:`ended` adds how it was scored."""
    return {"step": step, "split": split, "scores": scores}


def ended(
    arm: str,
    scores: Sequence[Mapping[str, Any]],
    seed: int = 0,
    *,
    diverged: bool = False,
    config: TrainConfig | None = None,
) -> Trained:
    """A run with these scores, of which no file exists. What a line leaves open is as the experiment scores."""
    config = config or preset("dcgan-cifar10").replace(
        {"steps": 4, "eval.metrics": ["kid", "fid"], "eval.splits": ["train"]}
    )
    stats = ({"step": 3, "seconds": 7.0},)
    lines = tuple({**_own(config, str(line["split"])), **line} for line in scores)
    return Trained(arm, seed, Path("nowhere") / arm, config, stats, lines, diverged)


def _own(config: TrainConfig, split: str) -> dict[str, Any]:
    """How a run's own scores are made: while it trains, or afterwards from 10,000 fakes against the test images."""
    if split in config.eval.splits:
        made = {"by": "train", "fake_count": config.eval.fakes, "real_count": config.eval.reals}
    else:
        made = {"by": "eval", "made_for": "reproduce", "fake_count": 10_000, "real_count": 10_000}
    return made | {"extractor": config.eval.extractor, "weights": "ema" if config.ema else "G"}
