"""Data sets by name: what they are, how each is read, and where its publisher offers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastdat.data import cifar10, cifar100, folder, lsun, mnist, stl10, tiny_imagenet
from fastdat.data.download import Archive, Files
from fastdat.data.source import Source
from fastdat.util.errors import DataError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set.

    Args:
        name: what configurations and commands call it.
        title: what people call it.
        channels: 3, or 1 for grey images.
        classes: number of classes; 0 where it has no labels that are used.
        resolution: what it is trained at unless told otherwise (Table I); None where only the user can know.
        resolutions: what it may be resized to; None is anything.
        open: root folder and split -> the images.
        origin: where its publisher offers it in a form that can be downloaded and checked.
    """

    name: str
    title: str
    channels: int
    classes: int
    resolution: int | None
    resolutions: tuple[int, ...] | None
    open: Callable[[Path, str], Source]
    origin: Archive | Files | None = None

    @property
    def page(self) -> Path:
        """Its page of documentation."""
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
        DatasetSpec("folder", "a folder of images", 3, 0, None, None, folder.open_folder),
    )
}


def dataset_spec(name: str) -> DatasetSpec:
    """The data set called ``name``.

    Raises:
        DataError: there is none.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def resolution_of(spec: DatasetSpec, resolution: int | None) -> int:
    """``resolution``, or what ``spec`` is trained at.

    Raises:
        DataError: there is neither, or the set cannot have it.
    """
    chosen = spec.resolution if resolution is None else resolution
    if chosen is None:
        raise DataError(f"{spec.title}: which size shall the images have? Give --resolution")
    if chosen < 1 or (spec.resolutions and chosen not in spec.resolutions):
        known = " or ".join(map(str, spec.resolutions or ())) or "a positive number"
        raise DataError(f"{spec.title} can be had at {known}; got resolution={chosen}")
    return chosen


def open_split(spec: DatasetSpec, root: Path, split: str) -> Source:
    """One split in its publisher's layout.

    Raises:
        DataError: no such split, or files that are missing or damaged.
    """
    if split not in SPLITS:
        raise DataError(f"{spec.title} has the splits {' and '.join(SPLITS)}; got {split!r}")
    return spec.open(root, split)
