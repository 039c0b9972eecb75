"""How many images the data sets have, for what is planned without them (fastdat/data/docs/README.md has the table)."""

from __future__ import annotations

from collections.abc import Mapping

TRAIN_IMAGES: Mapping[str, int] = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "stl10": 100_000,
    "tiny-imagenet": 100_000,
    "lsun-bedroom": 3_023_042,
    "mnist": 60_000,
}
"""Images of the train split, by name of the data set. A folder of images has as many as its owner put there."""
