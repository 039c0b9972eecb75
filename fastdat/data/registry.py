"""Data sets by name: what they are, how each is read, and where its publisher offers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastdat.data import cifar10, cifar100, folder, lsun, mnist, stl10, tiny_imagenet
from fastdat.data.download import Archive, Files
from fastdat.data.source import Source
from fastdat.util.errors import DataError, NoSuchSplitError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set.

    Args:
        name: its name in configurations and commands.
        title: its name in texts.
        channels: 3, or 1 for grey images.
        classes: number of classes; 0 if no labels are used, None if only the images tell.
        resolution: the resolution of Table I, used by default; None if only the user knows it.
        resolutions: the resolutions it can be resized to; None means any.
        open: opens one split, given the root folder and the split's name.
        origin: a download that can be checked; None if the publisher offers none.
    """

    name: str
    title: str
    channels: int
    classes: int | None
    resolution: int | None
    resolutions: tuple[int, ...] | None
    open: Callable[[Path, str], Source]
    origin: Archive | Files | None = None

    @property
    def page(self) -> Path:
        """The file with its documentation."""
        return Path(__file__).parent / "docs" / f"{self.name}.md"


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec("cifar10", "CIFAR-10", 3, 10, 32, None, cifar10.open_cifar10, cifar10.ARCHIVE),
        DatasetSpec("cifar100", "CIFAR-100", 3, 100, 32, None, cifar100.open_cifar100, cifar100.ARCHIVE),
        DatasetSpec("stl10", "STL-10", 3, 0, 48, None, stl10.open_stl10, stl10.ARCHIVE),
        DatasetSpec(
            "tiny-imagenet",
            "Tiny-ImageNet",
            3,
            200,
            64,
            None,
            tiny_imagenet.open_tiny_imagenet,
            tiny_imagenet.ARCHIVE,
        ),
        DatasetSpec("lsun-bedroom", "LSUN-Bedroom", 3, 0, 64, None, lsun.open_lsun_bedroom),
        DatasetSpec("mnist", "MNIST", 1, 10, 28, (28, 32), mnist.open_mnist, mnist.FILES),
        DatasetSpec("folder", "a folder of images", 3, None, None, None, folder.open_folder),
    )
}


def dataset_spec(name: str) -> DatasetSpec:
    """The data set called ``name``.

    Raises:
        DataError: unknown name.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def resolution_of(spec: DatasetSpec, resolution: int | None) -> int:
    """``resolution`` in pixels, or the default of ``spec`` if it is None.

    Raises:
        DataError: the set has no default, or cannot be resized to ``resolution``.
    """
    chosen = spec.resolution if resolution is None else resolution
    if chosen is None:
        raise DataError(f"{spec.title} has no default resolution. Give --resolution")
    if chosen < 1 or (spec.resolutions and chosen not in spec.resolutions):
        known = " or ".join(map(str, spec.resolutions or ())) or "a positive number"
        raise DataError(f"the resolution of {spec.title} must be {known}; got resolution={chosen}")
    return chosen


def open_split(spec: DatasetSpec, root: Path, split: str) -> Source:
    """One split in its publisher's layout.

    Raises:
        DataError: unknown split, or files that are missing or damaged.
    """
    if split not in SPLITS:
        raise DataError(f"{spec.title} has the splits {' and '.join(SPLITS)}; got {split!r}")
    return spec.open(root, split)


def available_splits(dataset: str, root: str | Path) -> tuple[str, ...]:
    """The splits that the publisher's files in ``root`` contain. Only a set without a fixed layout may lack one.

    Raises:
        DataError: files that the publisher provides are missing or damaged.
    """
    spec, found = dataset_spec(dataset), []
    for split in SPLITS:
        try:
            open_split(spec, Path(root), split)
        except NoSuchSplitError:
            continue
        found.append(split)
    return tuple(found)
