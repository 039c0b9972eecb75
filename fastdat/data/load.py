"""Load one split of a data set as an :class:`ImageSet`, from a packed store or from its publisher's files."""

from __future__ import annotations

import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from fastdat.data.image_files import Pixels, UnreadableImage
from fastdat.data.image_set import ImageSet
from fastdat.data.labelled import require_classes
from fastdat.data.registry import DatasetSpec, dataset_spec, open_split, resolution_of
from fastdat.data.resize import resized
from fastdat.data.source import ArraySource, Source
from fastdat.data.split_files import Checked
from fastdat.data.store import Store, is_store
from fastdat.util.errors import DataError
from fastdat.util.ranks import ONE_PROCESS, Ranks

#: The most images that are decoded into memory at every start. A larger set must be packed first.
MOST_IMAGES = 200_000


def load_split(
    dataset: str,
    root: str | Path,
    split: str = "train",
    resolution: int | None = None,
    progress: Checked | None = None,
    *,
    labelled: bool = False,
    ranks: Ranks | None = None,
) -> ImageSet:
    """One split, ready to train on.

    Args:
        dataset: a name in :data:`fastdat.data.registry.DATASETS`.
        root: a packed store, which is checked and memory-mapped; a folder with such a store of the set's own name, so
            that one folder can hold several sets; or the publisher's files, which are decoded into memory.
        split: ``"train"`` or ``"test"``.
        resolution: height and width in pixels; None means the paper's.
        progress: called while a store is checked, with the images checked and the images in all; tens of GB take a
            while.
        labelled: refuse images without classes, before they are decoded or checked.
        ranks: processes that all call this now; those on one machine check a store together. None means this one alone.

    Raises:
        DataError: the data is missing, damaged, not what was asked for, or too large to decode at every start, or not
            the same on all ranks. What one rank finds, all ranks raise.
    """
    ranks = ranks or ONE_PROCESS
    spec, root = dataset_spec(dataset), Path(root)
    size = resolution_of(spec, resolution)
    found = ranks.together(lambda: _found(spec, root, split, size, labelled=labelled))
    if len(set(ranks.all_of(isinstance(found, Store)))) > 1:
        raise DataError(
            f"{root} is a packed store on some machines and holds the publisher's files on others"
        )
    if isinstance(found, Store):
        data = found.split(split, dataset, size, progress, ranks)
    else:
        data = ranks.together(lambda: _in_memory(found, spec, split, size))
    if ranks and len(set(ranks.all_of(data.fingerprint))) > 1:
        raise DataError(f"{root} holds other images on some machines than on others. Give all the same data.")
    return data


def _found(spec: DatasetSpec, root: Path, split: str, size: int, *, labelled: bool) -> Source | Store:
    """What is in ``root``, before images are read."""
    if not is_store(root) and is_store(root / spec.name):
        root = root / spec.name
    found = Store(root) if is_store(root) else open_split(spec, root, split)
    if labelled:
        require_classes(found, root)
    if not isinstance(found, Store) and len(found) > MOST_IMAGES:
        pack = shlex.join(
            ["fastdat", "data", "pack", spec.name, str(root), "STORE", "--resolution", str(size)]
        )
        raise DataError(
            f"{root} has {len(found):,} images, too many to decode at every start. Pack them once:\n"
            f"    {pack}\nand give --data STORE, or call STORE {root / spec.name} and give --data {root}"
        )
    return found


def check_is_there(
    dataset: str, root: str | Path, split: str = "train", resolution: int | None = None
) -> None:
    """Raises DataError where :func:`load_split` would find nothing to read, or a store of something else; no image is
    read."""
    spec = dataset_spec(dataset)
    size = resolution_of(spec, resolution)
    found = _found(spec, Path(root), split, size, labelled=False)
    if isinstance(found, Store):
        found.require(dataset, size, split)


def _in_memory(source: Source, spec: DatasetSpec, split: str, size: int) -> ImageSet:
    """The publisher's images, decoded."""
    return ImageSet(
        name=f"{spec.name} {split}",
        images=torch.from_numpy(_decoded(source, spec.channels, size)),
        labels=torch.tensor(_labels(source), dtype=torch.int64),
        classes=source.classes,
    )


def _decoded(source: Source, channels: int, size: int) -> Pixels:
    """All images (N, C, H, W) at ``size``, decoded by threads: Pillow releases the interpreter lock."""
    if isinstance(source, ArraySource) and source.images.shape[-2:] == (size, size):
        return np.require(
            source.images, requirements=["C", "W"]
        )  # torch warns about arrays that are not writable
    out = np.empty((len(source), channels, size, size), np.uint8)

    def decode_into_out(i: int) -> None:
        try:
            out[i] = resized(source.read(i)[0], size).transpose(2, 0, 1)
        except UnreadableImage as error:
            raise DataError(
                f"{source.name_of(i)} cannot be decoded: {error}. Remove it, or pack the set "
                "(fastdat data pack), which leaves such images out and lists them"
            ) from error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(decode_into_out, range(len(source)), chunksize=64):
            pass
    return out


def _labels(source: Source) -> list[int]:
    labels = getattr(source, "labels", None)
    return [0] * len(source) if labels is None else [int(label) for label in labels]
