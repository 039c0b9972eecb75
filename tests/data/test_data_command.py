"""``fastdat data``: pack, info and their errors."""

from __future__ import annotations

import json
from pathlib import Path

from tests.data.helpers import run_command


def test_pack_and_info(pictures: Path, tmp_path: Path) -> None:
    bad = next((pictures / "train").rglob("*.png"))
    bad.write_bytes(b"rubbish")
    code, out, err = run_command(
        "data", "pack", "folder", pictures, tmp_path / "store", "--resolution", 32, "--workers", 0
    )
    assert code == 0
    assert "train: 59 images, 1 left out, fingerprint " in out
    assert f"left out of train: {bad.relative_to(pictures / 'train')}: " in err
    assert "\r" not in err
    assert run_command("data", "info", tmp_path / "store")[1] == out
    again = run_command("data", "pack", "folder", pictures, tmp_path / "store", "--resolution", 32)
    assert again[:2] == (0, out)
    assert "already holds these images (same names and sizes): nothing to do" in again[2]
    assert f"left out of train: {bad.relative_to(pictures / 'train')}: " in again[2]
    index = json.loads((tmp_path / "store" / "store.json").read_text())
    assert index["resize"].startswith("middle square")


def test_pack_takes_the_splits_that_exist(pictures: Path, tmp_path: Path) -> None:
    code, out, _ = run_command(
        "data", "pack", "folder", pictures / "train", tmp_path / "store", "--resolution", 16, "--workers", 0
    )
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[1:]] == ["  train"]


def test_info_lists_data_sets_and_describes_one() -> None:
    code, out, _ = run_command("data", "info")
    assert (code, len(out.splitlines())) == (0, 7)
    assert "stl10          STL-10, 48 pixels, no labels; fastdat data download" in out
    assert run_command("data", "info", "stl10")[1].startswith("# STL-10")
    assert "unknown data set 'imagenet'" in run_command("data", "info", "imagenet")[2]


def test_errors(tmp_path: Path) -> None:
    store = tmp_path / "s"
    missing = run_command("data", "pack", "folder", tmp_path / "x", store, "--resolution", 8)[2]
    assert "does not exist" in missing
    assert "is no packed data set" in run_command("data", "check", tmp_path)[2]
    assert "unknown data set" in run_command("data", "pack", "imagenet", tmp_path, store)[2]
