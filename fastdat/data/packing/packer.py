"""The function :func:`pack`: from a publisher's files to a complete store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdat.data.packing.partial_store import PartialStore, difference, remove_working_files
from fastdat.data.packing.pieces import images_per_piece
from fastdat.data.packing.split_writer import Progress, write_split
from fastdat.data.packing.workers import DecodingPool
from fastdat.data.registry import SPLITS, dataset_spec, open_split, resolution_of
from fastdat.data.resize import RESIZE
from fastdat.data.source import Source
from fastdat.data.store import FORMAT, Store, is_store
from fastdat.util.errors import DataError


@dataclass(frozen=True)
class Packed:
    """The outcome of :func:`pack`.

    Args:
        store: the complete store.
        skipped: the images that were left out, as (split, name, reason).
        already: whether the store existed before, so that nothing was done.
    """

    store: Store
    skipped: list[tuple[str, str, str]]
    already: bool = False


def pack(
    dataset: str,
    source: str | Path,
    dest: str | Path,
    *,
    resolution: int | None = None,
    splits: tuple[str, ...] = SPLITS,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Pack ``source``, a data set in its publisher's layout, into the store ``dest``.

    Args:
        dataset: a name in :data:`fastdat.data.registry.DATASETS`.
        source: folder with the publisher's files.
        dest: folder to create. If it already is an undamaged store of the same images, nothing is done. Image files are
            compared by name and size, so they may have been moved or copied since.
        resolution: height and width in pixels; None means the paper's.
        splits: the splits to pack.
        workers: decoding processes. None means one per available core; 0 decodes in this process. The processes are
            spawned, so a script that calls this function must guard the call by ``if __name__ == "__main__":``.
        progress: called after each piece.

    Raises:
        DataError: data is missing or damaged, too many images are unreadable, ``dest`` is something else, another
            process packs into it, or the disk has no room.
    """
    spec, source, dest = dataset_spec(dataset), Path(source), Path(dest)
    size = resolution_of(spec, resolution)
    sources = {split: open_split(spec, source, split) for split in splits}
    plan = {
        "format": FORMAT,
        "dataset": dataset,
        "resolution": size,
        "channels": spec.channels,
        "resize": RESIZE,
        "items": {split: len(s) for split, s in sources.items()},
        "source": str(source.resolve()),
    }
    identity = {split: s.identity() for split, s in sources.items()}
    if dest.exists():
        store = _existing_store(dest, {**plan, "identity": identity})
        return Packed(store, _skipped(store), already=True)
    partial = PartialStore(dest)
    try:
        with partial.locked():
            partial.begin(plan, spec.channels * size**2)
            facts = _write_splits(partial.path, sources, (spec.channels, size, size), workers, progress)
            classes = list(sources[splits[0]].classes)
            partial.publish({**plan, "identity": identity, "classes": classes, "splits": facts})
    except OSError as error:
        raise DataError(
            f"cannot write {dest}: {error.strerror or error}. The work done so far is kept in {partial.path}; run the "
            f"same command again to resume, or remove {partial.path} to start anew."
        ) from error
    store = Store(dest)
    return Packed(store, _skipped(store))


def _write_splits(
    folder: Path,
    sources: dict[str, Source],
    shape: tuple[int, int, int],
    workers: int | None,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    """Write each split into the partial store ``folder`` and return the splits' entries in the index."""
    image_bytes = math.prod(shape)
    with DecodingPool(workers, images_per_piece(image_bytes) * image_bytes) as pool:
        return {
            split: write_split(folder, split, source, shape, pool, progress)
            for split, source in sources.items()
        }


def _existing_store(dest: Path, wanted: dict[str, Any]) -> Store:
    """The store in ``dest``, if it holds the wanted images. Their folder may have moved since.

    Raises:
        DataError: ``dest`` is something else.
    """
    if not is_store(dest):
        raise DataError(f"{dest} exists and is no packed data set. Give another destination, or remove it.")
    store = Store(dest)
    # Neither where the images came from nor how the store lays them out makes it another one.
    differs = difference(store.index, {k: v for k, v in wanted.items() if k not in ("source", "format")})
    if differs:
        raise DataError(
            f"{dest} holds another store: {differs}. Give another destination, or remove it to pack again."
        )
    damage = list(store.damage())
    if damage:
        raise DataError(f"{dest} is damaged. Remove it and run the same command again.\n" + "\n".join(damage))
    remove_working_files(dest)
    return store


def _skipped(store: Store) -> list[tuple[str, str, str]]:
    return [
        (split, name, reason)
        for split, facts in store.index["splits"].items()
        for name, reason in facts["skipped"]
    ]
