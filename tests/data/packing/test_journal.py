"""The journal: which images are packed again when packing resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.data import ImageSet
from tests.data.helpers import content, packed, replace_image, stop_after, training_files

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.mark.parametrize("changed", [5, 12, 40])
def test_images_replaced_between_two_runs_are_packed_again(
    changed: int, cifar10: ImageSet, pictures: Path, tmp_path: Path
) -> None:
    """The piece with the other image under the same name and all pieces after it are packed again."""
    stop_after(16, pictures, tmp_path / "store")
    replace_image(training_files(pictures)[changed], cifar10)
    calls: list[int] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: calls.append(done))
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert calls[0] == min(changed // 8 * 8, 16) + 8


def test_skipped_images_repaired_between_two_runs_are_packed(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "whole")
    bad = training_files(pictures)[3]
    good = bad.read_bytes()
    bad.write_bytes(b"rubbish")
    stop_after(24, pictures, tmp_path / "store")
    bad.write_bytes(good)
    packed(pictures, tmp_path / "store")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_what_a_journal_of_two_processes_says_twice_is_packed_again(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partial = stop_after(16, pictures, tmp_path / "store")
    journal = (partial / "journal.jsonl").read_text()
    (partial / "journal.jsonl").write_text(journal + journal.splitlines()[-1] + "\n")
    calls: list[int] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: calls.append(done))
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert calls[0] == 24
    assert "the train files are not what journal.jsonl says; packing again from image 16 on" in caplog.text


def test_a_missing_line_is_noticed_even_if_it_adds_nothing_to_the_files(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images of the line were skipped, so the checksums of the files are the same without it."""
    monkeypatch.setattr("fastdat.data.packing.pieces.PIECE_IMAGES", 4)
    for path in training_files(pictures)[4:8]:
        path.write_bytes(b"rubbish")
    partial = stop_after(24, pictures, tmp_path / "store")
    lines = (partial / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (partial / "journal.jsonl").write_bytes(b"".join(lines[:1] + lines[2:]))
    packed(pictures, tmp_path / "store")
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
