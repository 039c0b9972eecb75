"""The classes of a conditional run. Those of a folder are known from its images alone, and the run records them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastdat.data import DATASETS, ImageSet
from fastdat.training.models import dataset_of, model_of
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.words import some


def with_classes(config: TrainConfig, data: ImageSet | None) -> TrainConfig:
    """``config`` with the number of classes in ``data``, if only the images tell it.

    Args:
        config: of the run.
        data: training images; None for the mixtures.

    Raises:
        ConfigError: there are fewer than two classes, another number than ``config.classes``, or one has no images.
    """
    if data is None or not model_of(config).conditional or DATASETS[dataset_of(config)].classes is not None:
        return config
    names = data.classes
    if len(names) < 2:
        raise ConfigError(
            f"model {config.model} needs labels, and {data.name} has {len(names) or 'no'} class{'es' * (not names)}; "
            "expected two or more, one subfolder per class"
        )
    if config.classes not in (None, len(names)):
        raise ConfigError(
            f"got classes={config.classes}, but {data.name} has {len(names)}: {some(names)}. Set classes=null, "
            "or give the data of that run"
        )
    counts = torch.bincount(data.labels, minlength=len(names)).tolist()
    empty = [name for name, count in zip(names, counts, strict=False) if not count]
    if empty:
        raise ConfigError(
            f"{data.name} has no image of the class{'es' * (len(empty) > 1)} {some(empty)}: those that it had may "
            "have been unreadable when it was packed. Add images, or remove the subfolder"
        )
    return config.replace({"classes": len(names)})


def changed_classes(then: Sequence[str], now: Sequence[str]) -> str:
    """How two lists of class names differ, in words; empty if they are equal, or if one is not known."""
    if not then or not now or list(then) == list(now):
        return ""
    new, gone = [name for name in now if name not in then], [name for name in then if name not in now]
    parts = [f"{what}: {some(names)}" for what, names in (("new", new), ("gone", gone)) if names]
    return f"{len(then)} classes then, {len(now)} now; {'; '.join(parts) or 'in another order'}"
