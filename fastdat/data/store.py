"""A packed data set: a folder of memory-mapped uint8 images that training reads without decoding anything.

``store.json`` is the index: it describes the store and holds one SHA-256 per block of images, one for the labels and
one for itself. ``train.images.npy`` (N, C, H, W) uint8 and ``train.labels.npy`` (N,) int64 are plain NumPy files, and
so are those of ``test``. Many images lie in shards instead: ``train.images-0000.u8`` and so on
(:mod:`fastdat.data.image_layout`). A split is compared with the index before it is used. :mod:`fastdat.data.packing`
writes stores.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastdat.data.image_layout import image_paths
from fastdat.data.image_set import ImageSet
from fastdat.data.registry import SPLITS
from fastdat.data.split_files import Checked, DamagedError, SplitFiles
from fastdat.data.store_index import check_index
from fastdat.util import sealed_json
from fastdat.util.errors import DataError
from fastdat.util.ranks import Ranks

#: The format that is written. Those of the format before have no shards.
FORMAT = 3
_READABLE = (2, FORMAT)
INDEX = "store.json"


def is_store(path: Path) -> bool:
    """Whether ``path`` is a packed data set, be it a damaged one."""
    return any(
        map(os.path.lexists, [path / INDEX, *image_paths(path, SPLITS)])
    )  # unlike Path.exists, raises nothing


class Store:
    """The packed data set in the folder ``path``. Packing puts it there only when it is complete.

    Args:
        path: the folder.

    Raises:
        DataError: there is no store, it has another format, or its index is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_store(self.path):
            raise DataError(
                f"{self.path} is no packed data set: it has no {INDEX}. This makes one: "
                "fastdat data pack DATASET SOURCE STORE"
            )
        self.index = self._read_index()

    def split(
        self,
        split: str,
        dataset: str,
        resolution: int,
        progress: Checked | None = None,
        ranks: Ranks | None = None,
    ) -> ImageSet:
        """The images of ``split``, memory-mapped, after every byte of them was compared with the index.

        Args:
            split: ``"train"`` or ``"test"``.
            dataset: the data set that is wanted.
            resolution: height and width that are wanted.
            progress: called after each block with the images checked here and the images to check here.
            ranks: processes that all call this now and share the reading; None means this one alone.

        Raises:
            DataError: the store holds another data set or resolution, has no such split, or its files are damaged.
        """
        index, ranks = self.index, ranks or Ranks()
        ranks.together(lambda: self.require(dataset, resolution, split))
        try:
            images, labels, fingerprint = self._files(split).checked(progress, ranks)
        except DamagedError as damage:
            check = f"fastdat data check {shlex.quote(str(self.path))}"
            error = DataError(f"{self._error(str(damage))}\nThis lists all damage: {check}")
            for note in getattr(damage, "__notes__", ()):  # which rank has found it
                error.add_note(note)
            raise error from damage
        return ImageSet(
            name=f"{dataset} {split}",
            images=read_only_tensor(images),
            labels=torch.from_numpy(labels),
            classes=tuple(index["classes"]),
            digest=fingerprint,
        )

    def damage(self, progress: Checked | None = None) -> Iterator[str]:
        """Read every byte of all splits, and describe each difference from the index in one line.

        Args:
            progress: as for :meth:`split`; starts anew with each split.
        """
        for split in self.index["splits"]:
            yield from self._files(split).damage(progress)

    def packing_command(self, dest: Path, resolution: int) -> str:
        """The command that packs the same images at ``resolution`` into ``dest``."""
        index = self.index
        words = [index["dataset"], index["source"], str(dest), "--resolution", str(resolution)]
        return f"fastdat data pack {shlex.join(words)}"

    def beside(self, ending: str) -> Path:
        """The path of another store, whose name is this one's and ``ending``."""
        path = self.path.resolve() if self.path.name in ("", "..") else self.path
        return path.with_name(f"{path.name}{ending}")

    def _files(self, split: str) -> SplitFiles:
        index = self.index
        shape = (index["channels"], index["resolution"], index["resolution"])
        return SplitFiles(self.path, split, shape, index["splits"][split])

    def require(self, dataset: str, resolution: int, split: str) -> None:
        """Refuse to be used as another data set, at another resolution, or for a split that is not here.

        Raises:
            DataError: the message says which settings fit.
        """
        held, size = self.index["dataset"], self.index["resolution"]
        if held != dataset:
            raise DataError(
                f"{self.path} holds {held}; expected {dataset}. Train on it with a preset whose name ends in -{held} "
                f"(fastdat presets lists them) or with --set dataset={held}, or give --data with {dataset}."
            )
        if size != resolution:
            other = self.packing_command(self.beside(f"-{resolution}"), resolution)
            raise DataError(
                f"{self.path} holds {held} at {size} pixels; expected {resolution} pixels. Train at {size} pixels with "
                f"--set resolution={size}, or pack the images at {resolution} pixels into another store:\n    {other}"
            )
        if split not in self.index["splits"]:
            raise self._error(f"{self.path} has no {split} split; it has: {', '.join(self.index['splits'])}")

    def _read_index(self) -> dict[str, Any]:
        path = self.path / INDEX
        if not path.exists() and self.path.name.endswith(".partial"):
            raise DataError(
                f"{self.path} is unfinished. Run its fastdat data pack command again: it resumes."
            )
        try:
            index = sealed_json.read(path)
        except FileNotFoundError as error:
            raise self._damaged_index(f"{path} is missing") from error
        except OSError as error:
            raise self._damaged_index(f"{path} cannot be read: {error.strerror or error}") from error
        except sealed_json.SealError as error:
            if error.unsealed is not None and error.unsealed.get("format") == 1:
                raise self._damaged_index(self._other_format(1)) from error
            raise self._damaged_index(f"{path} is damaged: {error}") from error
        if index.get("format") not in _READABLE:
            raise self._damaged_index(self._other_format(index.get("format")))
        if index["format"] < FORMAT and isinstance(index.get("splits"), dict):
            for facts in filter(lambda facts: isinstance(facts, dict), index["splits"].values()):
                facts["shard_images"] = None
        try:
            check_index(index)
        except ValueError as error:
            raise self._damaged_index(f"{path} is damaged: {error}") from error
        return index

    def _other_format(self, found: Any) -> str:
        return f"{self.path} is a store of format {found!r}; this version reads {' and '.join(map(str, _READABLE))}"

    def _damaged_index(self, problem: str) -> DataError:
        return DataError(
            f"{problem}. Remove {self.path} and pack the data set again (fastdat data pack DATASET SOURCE STORE)."
        )

    def _error(self, problem: str) -> DataError:
        """An error that packing again repairs."""
        command = self.packing_command(self.path, self.index["resolution"])
        return DataError(f"{problem}. Remove {self.path} and pack the data set again:\n    {command}")


def read_only_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """A tensor that shares memory with ``images``, which are mapped for reading only. Never write to it.

    A writable map would count against the machine's memory, so a store larger than memory could not be opened.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(images)
