"""Writing a split: skipped images, too many of them, system errors, progress and durability."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from fastdat.data import DataError, load_split, pack
from fastdat.data.packing.journal import JOURNAL
from fastdat.util import sealed_json
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
@pytest.mark.parametrize(
    ("split", "bad", "most"), [("train", 6, 6), ("train", 7, 6), ("test", 1, 1), ("test", 2, 1)]
)
def test_a_tenth_may_be_unreadable(split: str, bad: int, most: int, pictures: Path, tmp_path: Path) -> None:
    """Of 60 images and of 10: as soon as there are more, the rest is not tried."""
    files = sorted((pictures / split).rglob("*.png"))
    for path in files[:bad]:
        path.write_bytes(b"rubbish")
    if bad <= most:
        assert packed(pictures, tmp_path / "store").index["splits"][split]["count"] == len(files) - bad
        return
    last = files[bad - 1]
    with pytest.raises(DataError) as caught:
        packed(pictures, tmp_path / "store")
    assert str(caught.value).startswith(
        f"{bad} of the first 8 images of {split} cannot be read, the last one is {last.relative_to(pictures / split)}: "
        "it is no image of a known format, or its header is damaged. This looks like"
    )


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
        if str(file.name).endswith("013.png"):
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


def lines_of(journal: Path) -> list[tuple[str, int, int]]:
    """Split, first image and image after the last of each line that the journal has."""
    lines = map(sealed_json.unseal, journal.read_bytes().splitlines())
    return [(line["split"], line["start"], line["stop"]) for line in lines]


def test_five_seconds_of_work_at_most_are_not_yet_durable(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece of 4 images takes a second here."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("fastdat.data.packing.split_writer.time", clock)
    monkeypatch.setattr("fastdat.data.packing.pieces.PIECE_IMAGES", 4)
    lines: list[tuple[str, int, int]] = []

    def progress(*_: Any) -> None:
        clock.now += 1
        journal = tmp_path / "store.partial" / JOURNAL
        lines[:] = lines_of(journal) if journal.exists() else []

    packed(pictures, tmp_path / "store", progress=progress)
    assert lines == [
        *(("train", 0, 24), ("train", 24, 44), ("train", 44, 60)),
        ("test", 0, 10),
    ]


@pytest.mark.usefixtures("small_pieces")
def test_the_disk_has_all_that_the_journal_says(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_files(pictures)[20].write_bytes(b"rubbish")
    fsync, durable, said = os.fsync, {}, []

    def note(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        durable[path.name] = path.stat().st_size
        if path.name == JOURNAL:
            lines = [sealed_json.unseal(line) for line in path.read_bytes().splitlines()]
            split = lines[-1]["split"]
            count = sum(line["count"] for line in lines if line["split"] == split)
            said.append((split, count))
            assert durable[f"{split}.images.npy"] == 128 + count * 3 * 32 * 32
            assert durable[f"{split}.labels.npy"] == 128 + count * 8
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    packed(pictures, tmp_path / "store")
    train = [("train", count) for count in (8, 16, 23, 31, 39, 47, 55, 59)]
    assert said == [*train, ("test", 8), ("test", 10)]
