"""The partial store: one process, one plan, enough room, and one move into place."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from fastdat.data import DataError
from fastdat.data.packing.partial_store import remove_working_files
from tests.data.helpers import command_to_pack, content, packed


@pytest.mark.usefixtures("small_pieces")
def test_other_settings_than_before_are_refused(pictures: Path, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(pictures, tmp_path / "store", progress=stop)
    with pytest.raises(DataError, match=r"was started with other settings: resolution was 32, is now 16"):
        packed(pictures, tmp_path / "store", resolution=16)
    next((pictures / "train").rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"was started with other settings: items was .*60.*, is now .*59"):
        packed(pictures, tmp_path / "store")


def test_a_folder_of_something_else_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "store2.partial").mkdir()
    (tmp_path / "store2.partial" / "precious").write_text("")
    with pytest.raises(DataError, match="is in the way"):
        packed(pictures, tmp_path / "store2")


def test_too_little_room_is_refused_before_the_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100_000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(
        DataError, match=r"has 0 MiB of room, and 0 MiB are needed for 70 images of 32 pixels"
    ):
        packed(pictures, tmp_path / "store")
    monkeypatch.undo()
    store = packed(pictures, tmp_path / "store", resolution=16)
    assert store.index["resolution"] == 16, "the refused run had not begun"


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.slow
def test_two_processes_do_not_pack_into_one_folder(pictures: Path, tmp_path: Path) -> None:
    command = command_to_pack(pictures, tmp_path / "store", "--pause", "0.2")
    with subprocess.Popen(**command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(DataError, match=r"another process is packing into .*store.partial"):
            packed(pictures, tmp_path / "store")
        process.communicate()
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.parametrize("function", ["os.rename", "fastdat.data.packing.partial_store.remove_working_files"])
@pytest.mark.usefixtures("small_pieces")
def test_a_stop_before_or_after_the_move_into_place(
    function: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(pictures, tmp_path / "whole")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(function, stop)
        with pytest.raises(KeyboardInterrupt):
            packed(pictures, tmp_path / "store")
    packed(pictures, tmp_path / "store")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert not (tmp_path / "store.partial").exists()


def test_working_files_are_removed_whichever_are_left(tmp_path: Path) -> None:
    working = ["journal.jsonl", ".journal.jsonl.tmp", "plan.json", ".plan.json.tmp", ".lock"]
    kept = ["store.json", "train.images.npy"]
    for left in (working, working[1:3], working[:1], []):
        for name in (*left, *kept):
            (tmp_path / name).write_text("")
        remove_working_files(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == kept
