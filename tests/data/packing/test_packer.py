"""Packing as a whole: what a store holds, and that no kill, replaced image or full disk can produce a wrong one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdat.data import DataError, ImageSet, load_split, pack
from tests.data.helpers import command_to_pack, content, packed, replace_image, training_files
from tests.slow_cases import slow_except


def test_a_store_holds_what_the_reader_reads(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    for split in ("train", "test"):
        plain = load_split("folder", pictures, split, 32)
        stored = load_split("folder", tmp_path / "store", split, 32)
        assert torch.equal(plain.images, stored.images)
        assert torch.equal(plain.labels, stored.labels)
        assert plain.classes == stored.classes
        assert plain.fingerprint == stored.fingerprint == stored.digest
        array = np.load(tmp_path / "store" / f"{split}.images.npy")
        assert (array == plain.images.numpy()).all(), "a plain NumPy file"
    assert not (tmp_path / "store.partial").exists()
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        "store.json", "train.images.npy", "train.labels.npy", "test.images.npy", "test.labels.npy",
    }  # fmt: skip


def test_real_data_is_packed_unchanged(cifar10_root: Path, tmp_path: Path) -> None:
    store = pack("cifar10", cifar10_root, tmp_path / "store", splits=("test",)).store
    assert list(store.damage()) == []
    plain = load_split("cifar10", cifar10_root, "test")
    stored = load_split("cifar10", tmp_path / "store", "test")
    assert torch.equal(plain.images, stored.images)
    assert plain.fingerprint == stored.fingerprint
    with pytest.raises(DataError, match="has no train split; it has: test"):
        load_split("cifar10", tmp_path / "store", "train")


def test_packing_again_does_nothing(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    before = (tmp_path / "store" / "store.json").stat().st_mtime_ns
    packed(pictures, tmp_path / "store")
    assert (tmp_path / "store" / "store.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"holds another store: resolution was 32, is now 16"):
        packed(pictures, tmp_path / "store", resolution=16)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="other exists and is no packed data set"):
        packed(pictures, tmp_path / "other")


# --- other images in the source ----------------------------------------------------------------------------------


def test_a_store_of_other_images_is_refused(cifar10: ImageSet, pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    moved = pictures.rename(tmp_path / "moved")
    packed(moved, tmp_path / "store")  # the same images
    Image.fromarray(cifar10.images[99].permute(1, 2, 0).numpy()).save(moved / "train" / "a" / "another.png")
    with pytest.raises(DataError, match=r"holds another store: items was .*60.*, is now .*61"):
        packed(moved, tmp_path / "store")
    next((moved / "train" / "a").glob("0*.png")).unlink()
    with pytest.raises(
        DataError, match="holds another store: it has the same number of images, but other images"
    ):
        packed(moved, tmp_path / "store")


def test_images_replaced_after_packing_are_noticed(cifar10: ImageSet, pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    replace_image(next((pictures / "train").rglob("*.png")), cifar10)
    with pytest.raises(
        DataError, match="holds another store: it has the same number of images, but other images"
    ):
        packed(pictures, tmp_path / "store")


# --- interruptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", slow_except([4], [1, 4, 9]))
@pytest.mark.usefixtures("small_pieces")
def test_a_killed_run_resumes_with_the_same_result(pieces: int, pictures: Path, tmp_path: Path) -> None:
    """kill -9 after 1, 4 or 9 of the ten pieces, in the first split or the second."""
    training_files(pictures)[9].write_bytes(b"rubbish")
    packed(pictures, tmp_path / "whole")
    command = command_to_pack(pictures, tmp_path / "store", "--pause", "0.05")
    with subprocess.Popen(**command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(pieces):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "store").exists()
    with (tmp_path / "store.partial" / "journal.jsonl").open("a") as file:
        file.write('{"split": "tr')  # what a kill in the middle of a line may leave
    calls: list[Any] = []
    packed(pictures, tmp_path / "store", progress=lambda *a: calls.append(a))
    assert content(tmp_path / "whole") == content(tmp_path / "store")
    assert len(calls) <= 10 - pieces, "finished pieces are not packed again"
    assert not (tmp_path / "store.partial").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("small_pieces")
def test_a_full_disk_interrupts_and_packing_resumes(pictures: Path, tmp_path: Path, small_disk: Path) -> None:
    packed(pictures, tmp_path / "whole")

    def fill(split: str, done: int, total: int, skipped: int) -> None:
        if done == 16:
            with pytest.raises(OSError, match="No space"):
                (small_disk / "ballast").write_bytes(bytes(1 << 20))

    with pytest.raises(DataError, match=r"No space left on device. The work done so far is kept in"):
        packed(pictures, small_disk / "store", progress=fill)
    assert not (small_disk / "store").exists()
    (small_disk / "ballast").unlink()
    packed(pictures, small_disk / "store")
    assert content(tmp_path / "whole") == content(small_disk / "store")


def test_a_limit_on_file_sizes_interrupts(pictures: Path, tmp_path: Path) -> None:
    """The same failure without a mounted disk: the operating system refuses the write."""
    command = command_to_pack(pictures, tmp_path / "store", "--file-limit", "60000")
    result = subprocess.run(**command, capture_output=True, check=False)
    assert result.returncode == 1
    assert "DataError: cannot write" in result.stderr
    assert "File too large" in result.stderr
    assert not (tmp_path / "store").exists()
    packed(pictures, tmp_path / "store2")
