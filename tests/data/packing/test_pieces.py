"""Pieces: bounded by images and by bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastdat.data.folder import open_folder
from fastdat.data.packing.pieces import PieceTask, Skipped, decode_piece, images_per_piece, piece_tasks
from fastdat.data.source import ArraySource
from tests.data.helpers import content, packed, training_files


def test_few_large_images_are_shared_among_processes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of a piece are bounded too, and the store does not depend on the bound."""
    monkeypatch.setattr("fastdat.data.packing.pieces.PIECE_BYTES", 5 * 3 * 32 * 32)
    calls: list[int] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: calls.append(done))
    assert calls == [*range(5, 61, 5), 5, 10]
    monkeypatch.undo()
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_piece_says_which_images_it_skipped(pictures: Path) -> None:
    """By their numbers in the whole source, of which a piece knows only its own part."""
    source, files = open_folder(pictures, "train"), training_files(pictures)
    whole = decode_piece(PieceTask(source, 0, 60, (3, 32, 32)))
    assert (whole.stop, whole.skipped, whole.labels.tolist()) == (60, [], [*source.labels])
    for bad in (32, 33, 39):
        files[bad].write_bytes(b"rubbish")
    piece = decode_piece(PieceTask(source.part(30, 40), 30, 40, (3, 32, 32)))
    kept = [30, 31, *range(34, 39)]
    assert (piece.images == whole.images[kept]).all()
    assert piece.labels.tolist() == whole.labels[kept].tolist()
    assert (piece.images.dtype, piece.labels.dtype, piece.stop) == (np.uint8, np.int64, 40)
    names = [str(files[bad].relative_to(pictures / "train")) for bad in (32, 33, 39)]
    assert [(skipped.number, skipped.name) for skipped in piece.skipped] == [
        *zip((32, 33, 39), names, strict=True)
    ]
    assert all(isinstance(skipped, Skipped) and skipped.reason for skipped in piece.skipped)


def test_pieces_are_bounded_by_images_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert images_per_piece(1 << 17) == 256
    assert images_per_piece((1 << 18) + 1) == 255, "64 MiB hold no 256 of them"
    assert images_per_piece(1 << 27) == 1, "one image is larger than a piece may be"
    monkeypatch.setattr("fastdat.data.packing.pieces.PIECE_IMAGES", 4)
    source = ArraySource(np.zeros((11, 3, 2, 5), np.uint8), np.arange(11))
    tasks = [*piece_tasks(source, 2, (3, 2, 2))]
    assert [(task.start, task.stop, task.shape) for task in tasks] == [
        (2, 6, (3, 2, 2)), (6, 10, (3, 2, 2)), (10, 11, (3, 2, 2)),
    ]  # fmt: skip
    assert [task.source.read(0)[1] for task in tasks] == [2, 6, 10]
