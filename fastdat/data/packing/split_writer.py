"""Write one split of a store: decode its pieces, append them to the split's files, keep the journal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastdat.data import npy
from fastdat.data.image_layout import ImageFiles, shard_images
from fastdat.data.packing.journal import Journal
from fastdat.data.packing.npy_writer import NpyWriter
from fastdat.data.packing.pieces import Skipped, decode_piece, images_per_piece, piece_tasks
from fastdat.data.packing.shard_writer import image_writer
from fastdat.data.packing.workers import DecodingPool
from fastdat.data.source import Source
from fastdat.data.split_files import SplitFiles
from fastdat.util.errors import DataError

#: The largest share of unreadable images. More of them mean a wrong folder or a broken disk, not a few bad files.
MOST_UNREADABLE = 0.1
#: Seconds of work that a kill may cost. Waiting for the disk more often would cost more time.
DURABLE_SECONDS = 5.0

Progress = Callable[[str, int, int, int], None]
"""Called after each piece with the split, images done, images in all and images skipped so far."""


def write_split(
    folder: Path,
    split: str,
    source: Source,
    shape: tuple[int, int, int],
    pool: DecodingPool,
    progress: Progress | None,
) -> dict[str, Any]:
    """Complete the files of ``split`` in ``folder`` and return the split's entry in the index.

    Args:
        folder: the partial store.
        split: name of the split.
        source: its images.
        shape: (C, H, W) of the packed images.
        pool: decodes the pieces.
        progress: called after each piece, unless None.

    Raises:
        DataError: too many images or all of them are unreadable, or the disk gives back other bytes than were written.
    """
    shard = shard_images(len(source), math.prod(shape))
    files = ImageFiles(folder, split, shape, shard)
    journal = Journal(folder, split, source, files)
    total, skipped = len(source), list(journal.skipped)
    labels_path = npy.files_of(folder, split)[1]
    several_pieces = total - journal.done > images_per_piece(math.prod(shape))
    with (
        image_writer(files, journal.count) as images,
        NpyWriter(labels_path, npy.LABELS, (), journal.count) as labels,
    ):
        durable_at = time.monotonic()
        tasks = piece_tasks(source, journal.done, shape)
        for piece in pool.map(decode_piece, tasks, in_processes=several_pieces):
            skipped += piece.skipped
            # Checked before the journal records the piece, so that the next run tries it again.
            _refuse_many_unreadable(split, skipped, piece.stop, total)
            images.append(piece.images)
            labels.append(piece.labels)
            journal.checksums.append(piece.images, piece.labels)
            if piece.stop == total or time.monotonic() - durable_at >= DURABLE_SECONDS:
                images.make_durable()  # before the journal says so
                labels.make_durable()
                journal.add(piece.stop, images.count, skipped)
                durable_at = time.monotonic()
            if progress is not None:
                progress(split, piece.stop, total, len(skipped))
        if not images.count:
            raise DataError(f"no image of the {split} split can be read")
        images.finish()
        labels.finish()
    facts = {
        "count": images.count,
        "items": total,
        "skipped": [[name, reason] for _, name, reason in skipped],
        **journal.checksums.entries(),
        "shard_images": shard,
    }
    _compare_with_disk(folder, split, shape, facts)
    return facts


def _refuse_many_unreadable(split: str, skipped: list[Skipped], done: int, total: int) -> None:
    if len(skipped) > max(MOST_UNREADABLE * total, 1):
        raise DataError(
            f"{len(skipped)} of the first {done} images of {split} cannot be read, the last one is {skipped[-1].name}: "
            f"{skipped[-1].reason}. This looks like a wrong folder or a broken disk; nothing was put in place."
        )


def _compare_with_disk(folder: Path, split: str, shape: tuple[int, int, int], facts: dict[str, Any]) -> None:
    """Require that the files hold what was appended to them, for the checksums in ``facts`` come from memory."""
    damage = list(SplitFiles(folder, split, shape, facts).damage())
    if damage:
        raise DataError(
            f"the disk gives back other bytes than were written to it. Remove {folder} and pack again. If it happens "
            "again, this machine's disk or memory is faulty.\n" + "\n".join(damage)
        )
