"""Every kind of damage to a partial store: packing resumes to the right bytes, or says what to do."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastdat.data import DataError
from fastdat.data.packing import journal
from fastdat.data.packing.checksums import Checksums
from fastdat.data.packing.npy_writer import NpyWriter
from fastdat.util import sealed_json
from tests.data.helpers import content, flip_bit, packed, stop_after

pytestmark = pytest.mark.usefixtures("small_pieces")

FILES = ("plan.json", "journal.jsonl", "train.images.npy", "train.labels.npy")


class Interrupted:
    """A partial store of 24 of 60 images, and the complete store that it should become."""

    def __init__(self, pictures: Path, folder: Path) -> None:
        self._pictures, self.store = pictures, folder / "store"
        packed(pictures, folder / "whole")
        self._whole = content(folder / "whole")
        self.path = stop_after(24, pictures, self.store)
        shutil.copytree(self.path, folder / "copy")
        self._copy = folder / "copy"

    def resume(self) -> str:
        """Pack to the end, if that is not refused; returns the error's message. Then interrupted as before."""
        try:
            packed(self._pictures, self.store)
            assert content(self.store) == self._whole, "damage was used"
            return ""
        except DataError as error:
            assert not self.store.exists()
            return str(error)
        finally:
            for path in (self.store, self.path):
                shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(self._copy, self.path)


@pytest.fixture
def interrupted(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # hundreds of small stores
    return Interrupted(pictures, tmp_path)


@pytest.mark.parametrize(("name", "flips"), [*zip(FILES, (50, 70, 30, 30), strict=True)])
def test_flipped_bits(
    name: str, flips: int, interrupted: Interrupted, caplog: pytest.LogCaptureFixture
) -> None:
    path, rng = interrupted.path / name, random.Random(name)
    head = 1024 if name.endswith(".npy") else 0  # bits of the header, which is written at the end
    bits = [rng.randrange(head, 8 * path.stat().st_size) for _ in range(flips - 1)]
    for bit in [*bits, 8 * path.stat().st_size - 1]:
        flip_bit(path, bit)
        caplog.clear()
        message = interrupted.resume()
        if name == "plan.json":
            assert f"{path} is damaged: it " in message
            assert f"Remove {interrupted.path} and pack again" in message
        elif name == "journal.jsonl":
            last_line_end = bit // 8 == path.stat().st_size - 1
            assert not message
            assert last_line_end or "journal.jsonl is damaged and not used" in caplog.text
        else:
            assert not message
            assert "the train files are not what journal.jsonl says; packing again from image" in caplog.text
    assert interrupted.resume() == ""


@pytest.mark.parametrize("name", FILES)
def test_truncated_extended_and_missing_files(name: str, interrupted: Interrupted) -> None:
    path, rng = interrupted.path / name, random.Random(name)
    size = path.stat().st_size
    for end in (0, 1, 64, size - 1, *(rng.randrange(size) for _ in range(5))):
        os.truncate(path, end)
        message = interrupted.resume()
        assert bool(message) == (name == "plan.json")
    with path.open("ab") as file:
        file.write(b"more\n")
    assert bool(interrupted.resume()) == (name == "plan.json")
    path.unlink()
    message = interrupted.resume()
    assert ("is in the way: it has no plan.json" in message) if name == "plan.json" else not message
    path.unlink()
    path.mkdir()
    message = interrupted.resume()
    assert "Is a directory" in message
    assert f"remove {interrupted.path} to start anew" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: lines[:1] + lines[2:],
        lambda lines: lines[::-1],
        lambda lines: [lines[0], *lines],
        lambda lines: [lines[0].replace(b'"count": 8', b'"count": 7'), *lines[1:]],
        lambda lines: [b"", *lines],
        lambda lines: [b"{}", *lines],
        lambda lines: [b"[" * 100_000, *lines],
        lambda lines: [sealed_json.seal({}), *lines],
        lambda lines: [sealed_json.seal({"split": "train"}), *lines],
    ],
)
def test_other_lines(change: Callable[[list[bytes]], list[bytes]], interrupted: Interrupted) -> None:
    path = interrupted.path / "journal.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().splitlines())))
    assert interrupted.resume() == ""


def test_a_plan_of_another_version_is_refused(interrupted: Interrupted) -> None:
    (interrupted.path / "plan.json").write_text('{"format": 1}')
    assert "plan.json is damaged: it has no sha256" in interrupted.resume()


@pytest.mark.parametrize("damaged", ["train.images.npy", "train.labels.npy", "test.images.npy"])
def test_the_index_is_of_what_was_decoded(
    damaged: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that changes what is written to it, here before the last items are complete."""
    finish = NpyWriter.finish

    def finish_and_damage(self: Any) -> None:
        finish(self)
        if self._file.name.endswith(damaged):
            flip_bit(Path(self._file.name), 8 * 130)

    monkeypatch.setattr(NpyWriter, "finish", finish_and_damage)
    with pytest.raises(
        DataError, match=r"the disk gives back other bytes than were written to it. Remove .*partial"
    ):
        packed(pictures, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    monkeypatch.undo()


def test_few_images_are_read_at_once(interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line covers seconds of work, which may be GB: here 8 images, of which 3 are in memory."""
    counts = []
    append = Checksums.append

    def counting(self: Checksums, images: Any, labels: Any) -> None:
        counts.append(len(images))
        append(self, images, labels)

    monkeypatch.setattr(Checksums, "append", counting)
    monkeypatch.setattr(journal, "_READ_BYTES", 3 * 3072)
    assert interrupted.resume() == ""
    assert counts[:9] == [3, 3, 2] * 3


def test_the_other_split_is_kept(pictures: Path, tmp_path: Path) -> None:
    def stop(split: str, done: int, *_: int) -> None:
        if (split, done) == ("test", 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(pictures, tmp_path / "store", progress=stop)
    lines = (tmp_path / "store.partial" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[5] = b"rubbish\n"  # of the train split; the images from 40 on follow from it
    (tmp_path / "store.partial" / "journal.jsonl").write_bytes(b"".join(lines))
    calls: list[tuple[str, int]] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: calls.append((split, done)))
    assert calls == [("train", 48), ("train", 56), ("train", 60), ("test", 10)]
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
