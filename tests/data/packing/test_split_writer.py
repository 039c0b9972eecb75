"""Writing a split: skipped images, too many of them, system errors, progress and durability."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fastdat.data import DataError, load_split, pack
from tests.data.helpers import content, packed, stop_after, training_files


@pytest.mark.usefixtures("small_pieces")
def test_progress_is_reported_after_each_piece(pictures: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int, int]] = []
    packed(pictures, tmp_path / "store", progress=lambda *a: calls.append(a))
    assert calls[0] == ("train", 8, 60, 0)
    assert calls[-1] == ("test", 10, 10, 0)


@pytest.mark.usefixtures("small_pieces")
def test_corrupt_images_are_skipped_and_listed(pictures: Path, tmp_path: Path) -> None:
    plain = load_split("folder", pictures, "train", 32)
    bad = training_files(pictures)[9]
    bad.write_bytes(bad.read_bytes()[:60])
    result = pack("folder", pictures, tmp_path / "store", resolution=32, workers=0)
    ((split, name, reason),) = result.skipped
    assert (split, name) == ("train", str(bad.relative_to(pictures / "train")))
    assert reason
    stored = load_split("folder", tmp_path / "store", "train", 32)
    keep = [i for i in range(60) if i != 9]
    assert torch.equal(stored.images, plain.images[keep])
    assert torch.equal(stored.labels, plain.labels[keep])
    assert result.store.index["splits"]["train"]["skipped"] == [[name, reason]]
    assert list(result.store.damage()) == []


@pytest.mark.usefixtures("small_pieces")
def test_a_folder_of_mostly_rubbish_is_refused(pictures: Path, tmp_path: Path) -> None:
    for path in list((pictures / "train").rglob("*.png"))[::3]:
        path.write_bytes(b"rubbish")
    with pytest.raises(
        DataError, match=r"of the first \d+ images of train cannot be read.*nothing was put in place"
    ):
        packed(pictures, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("small_pieces")
def test_a_refused_folder_is_refused_until_it_is_repaired(pictures: Path, tmp_path: Path) -> None:
    files = training_files(pictures)
    originals = [file.read_bytes() for file in files]
    for file in files[:40]:
        file.write_bytes(b"rubbish")
    for _ in range(3):
        with pytest.raises(DataError, match="This looks like a wrong folder or a broken disk"):
            packed(pictures, tmp_path / "store")
    for file, original in zip(files, originals, strict=True):
        file.write_bytes(original)
    packed(pictures, tmp_path / "store")
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_failing_disk_is_not_a_bad_image(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """System errors stop packing, which can resume later. Counted as damage, they would lose good images."""
    opened = Image.open

    def failing(file: Any, **options: Any) -> Any:
        if str(file).endswith("013.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(file, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", failing)
        with pytest.raises(DataError, match=r"013.png cannot be read: Input/output error"):
            packed(pictures, tmp_path / "store")
    assert packed(pictures, tmp_path / "store").index["splits"]["train"]["count"] == 60


@pytest.mark.usefixtures("small_pieces")
def test_pieces_that_are_not_yet_durable_are_packed_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastdat.data.packing.split_writer.DURABLE_SECONDS", 3600)
    partial = stop_after(16, pictures, tmp_path / "store")
    assert not (partial / "journal.jsonl").exists()
    packed(pictures, tmp_path / "store")
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
