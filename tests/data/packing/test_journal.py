"""The journal: which images are packed again when packing resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastdat.data import ImageSet
from fastdat.data.folder import open_folder
from fastdat.data.image_layout import ImageFiles
from fastdat.data.packing.journal import JOURNAL, Journal
from fastdat.util import sealed_json
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
    bad.write_bytes(b"x" * len(good))  # what is told by its size is packed again anyway
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


#: Entries that no line has, of one about the images 8 to 15 of which image 9 was skipped.
WRONG: list[dict[str, Any]] = [
    *({key: value} for key in ("start", "stop", "count") for value in (None, -1, 8.0, "8", True, [8])),
    *(
        {key: value}
        for key in ("split", "identity", "fingerprint", "labels")
        for value in (None, 3, ["train"])
    ),
    *({"skipped": value} for value in (None, 3, "abc", {}, [9], ["abc"], [["9", "a", "b"]], [[9, "a"]])),
    *({"skipped": [value]} for value in ([9, "a", 3], [9, None, "b"], [9, "a", "b", "c"], [True, "a", "b"])),
    *({"skipped": [[number, "a", "b"]]} for number in (7, 16, -1)),
    *({"start": 17}, {"stop": 7}, {"count": 9}, {"more": 1}),
]


def test_lines_with_other_entries_are_not_used(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their digests are right, as if another program had written them."""
    training_files(pictures)[9].write_bytes(b"rubbish")
    partial = stop_after(16, pictures, tmp_path / "store")
    source, files = open_folder(pictures, "train"), ImageFiles(partial, "train", (3, 32, 32), None)
    first, second = (partial / JOURNAL).read_bytes().splitlines()
    right = sealed_json.unseal(second)
    assert (right["start"], right["stop"], right["count"]) == (8, 16, 7)
    assert [skipped[0] for skipped in right["skipped"]] == [9]
    for change in ({}, *WRONG):
        caplog.clear()
        (partial / JOURNAL).write_bytes(b"%b\n%b\n" % (first, sealed_json.seal(right | change)))
        journal = Journal(partial, "train", source, files)
        assert (journal.done, journal.count) == ((8, 8) if change else (16, 15)), change
        assert len(journal.skipped) == (0 if change else 1)
        warned = [f"line 2 of {partial / JOURNAL} is damaged and not used"] if change else []
        assert [record.getMessage() for record in caplog.records] == warned, change
        assert (partial / JOURNAL).read_bytes().startswith(first)
