"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastdat.util.files import append_line, lock, write_atomically


@pytest.mark.parametrize("whole", [b"", b'{"step": 1}\n', b'{"a": "' + b"x" * 9000 + b'", "step": 1}\n'])
def test_half_a_line_is_dropped_before_the_next_is_appended(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(whole + b'{"step": 2, "scor')
    append_line(path, '{"step": 3}')
    assert path.read_bytes() == whole + b'{"step": 3}\n'


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]
    write_atomically(path, b"new", flush=False)
    assert path.read_bytes() == b"new"


def test_one_open_file_at_a_time_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert lock(first.fileno()) is True
        assert lock(second.fileno()) is False
    with path.open("w") as third:
        assert lock(third.fileno()) is True


def test_a_path_that_is_not_utf_8_can_stand_in_a_line(tmp_path: Path) -> None:
    append_line(tmp_path / "log.txt", os.fsdecode(b"in caf\xe9"))
    assert (tmp_path / "log.txt").read_text() == "in caf\\udce9\n"
