"""Opening a store: the wrong one, what its messages advise, progress, and one larger than memory."""

from __future__ import annotations

import os
import shlex
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdat.data import DataError, Store, load_split, npy, split_files
from fastdat.data.split_files import CHUNK, SplitFiles, _digest, checking_threads
from fastdat.data.store import read_only_tensor
from tests.data.helpers import flip_bit, packed, run_command, stop_after


def test_a_store_at_another_resolution_names_both_ways_out(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    with pytest.raises(DataError, match="store holds folder at 32 pixels; expected 16 pixels") as caught:
        load_split("folder", tmp_path / "store", "train", 16)
    assert "--set resolution=32" in str(caught.value)
    command = shlex.split(str(caught.value).splitlines()[-1])
    assert command == [
        *("fastdat", "data", "pack", "folder", str(pictures), str(tmp_path / "store-16")),
        *("--resolution", "16"),
    ]
    assert run_command(*command[1:], "--workers", 0)[0] == 0
    assert load_split("folder", tmp_path / "store-16", "train", 16).resolution == 16


def test_a_store_of_another_data_set_names_the_presets_that_fit(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    with pytest.raises(DataError, match="store holds folder; expected cifar10") as caught:
        load_split("cifar10", tmp_path / "store", "train", 32)
    for advice in ("preset whose name ends in -folder", "--set dataset=folder", "give --data with cifar10"):
        assert advice in str(caught.value)


def test_a_missing_split(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store", splits=("train",))
    with pytest.raises(DataError, match=r"store has no test split; it has: train. Remove .* and pack"):
        load_split("folder", tmp_path / "store", "test", 32)


@pytest.mark.usefixtures("small_pieces")
def test_an_unfinished_store_is_not_opened(pictures: Path, tmp_path: Path) -> None:
    partial = stop_after(16, pictures, tmp_path / "store")
    with pytest.raises(
        DataError, match=r"store.partial is unfinished. Run its fastdat data pack command again"
    ):
        load_split("folder", partial, "train", 32)


@pytest.mark.usefixtures("small_pieces")
def test_the_command_check_lists_all_damage(pictures: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    packed(pictures, store)
    bits = [(store / "train.images.npy", 8 * (128 + 8 * i * 3072 + 5)) for i in (1, 6)]
    bits += [(store / "test.labels.npy", 8 * 130), (store / "test.images.npy", 8 * 20)]
    for path, bit in bits:
        flip_bit(path, bit)
    code, _, err = run_command("data", "check", store)
    assert code == 2
    assert "store is damaged. Remove it and pack the data set again" in err
    images = store / "train.images.npy"
    for line in (
        f"train: block 1 (images 8 to 15) of {images} has changed since it was packed",
        f"train: block 6 (images 48 to 55) of {images} has changed since it was packed",
        f"test: the labels in {store / 'test.labels.npy'} have changed since they were packed",
        f"the header of {store / 'test.images.npy'} has changed since it was packed",
    ):
        assert line in err.splitlines()
    for path, bit in bits:
        flip_bit(path, bit)
    assert run_command("data", "check", store)[:2] == (0, f"{store} is undamaged\n")


@pytest.mark.usefixtures("small_pieces")
def test_packing_into_a_damaged_store_does_not_call_it_complete(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    flip_bit(tmp_path / "store" / "train.images.npy", 99_999)
    with pytest.raises(
        DataError, match=r"store is damaged. Remove it and run the same command again\.\ntrain: block 0"
    ):
        packed(pictures, tmp_path / "store")


@pytest.mark.usefixtures("small_pieces")
def test_progress_is_reported_after_each_block(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    calls: list[tuple[int, int]] = []
    load_split("folder", tmp_path / "store", "train", 32, lambda *arguments: calls.append(arguments))
    assert calls == [*((done, 60) for done in range(8, 60, 8)), (60, 60)]


@pytest.mark.usefixtures("small_pieces")
def test_what_progress_raises_stops_the_check(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 blocks, the one that a thread is reading is the last."""
    packed(pictures, tmp_path / "store")
    read: list[int] = []
    reads_on, ended = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ended.set()
            super().shutdown(wait)

    def slow(descriptor: int, start: int, size: int) -> str:
        read.append(start)
        if len(read) == 2:
            reads_on.set()
            ended.wait(10)
        return _digest(descriptor, start, size)

    def stop(*_: Any) -> None:
        assert reads_on.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(split_files, "checking_threads", lambda _: 1)
    monkeypatch.setattr(split_files, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(split_files, "_digest", slow)
    with pytest.raises(KeyboardInterrupt):
        load_split("folder", tmp_path / "store", "train", 32, stop)
    assert ended.is_set()
    assert read == [128, 128 + 8 * 3 * 32 * 32]


def test_the_images_are_those_that_were_checked(pictures: Path, tmp_path: Path) -> None:
    """Another file that takes the place of the checked one while the check runs is not used."""
    packed(pictures, tmp_path / "store")
    path = tmp_path / "store" / "train.images.npy"
    expected = np.load(path)

    def replace(*_: Any) -> None:
        (tmp_path / "other").write_bytes(bytes(path.stat().st_size))
        (tmp_path / "other").rename(path)

    images = load_split("folder", tmp_path / "store", "train", 32, replace).images
    assert (images.numpy() == expected).all()


def test_a_file_that_becomes_shorter_while_it_is_checked(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    with pytest.raises(
        DataError, match=r"train.images.npy has become shorter while it was read. Remove .* and pack"
    ):
        load_split(
            "folder", tmp_path / "store", "train", 32,
            lambda *_: os.truncate(tmp_path / "store" / "train.images.npy", 1000),
        )  # fmt: skip


def test_an_unreadable_block_is_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    packed(pictures, tmp_path / "store")
    monkeypatch.setattr("os.preadv", failing)
    with pytest.raises(
        DataError, match=r"block 0 \(images 0 to 59\) of .* cannot be read: Input/output error"
    ):
        load_split("folder", tmp_path / "store", "train", 32)
    assert len(list(Store(tmp_path / "store").damage())) == 2


# --- stores larger than memory -----------------------------------------------------------------------------------


def test_checking_needs_little_memory(pictures: Path, tmp_path: Path) -> None:
    """However large the blocks are: here 47 MB."""
    packed(pictures, tmp_path / "store", resolution=512)
    tracemalloc.start()
    try:
        data = load_split("folder", tmp_path / "store", "train", 512)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.images.numel() > 40 * CHUNK
    assert peak < (checking_threads() + 1) * CHUNK


def test_images_are_mapped_for_reading_only(tmp_path: Path) -> None:
    """A sparse file of 1 TiB: what is mapped for reading does not count against memory."""
    count = (1 << 40) // (3 * 32 * 32)
    with (tmp_path / "train.images.npy").open("w+b") as file:
        file.truncate(npy.HEADER_BYTES + count * 3 * 32 * 32)
        images = read_only_tensor(np.memmap(file, np.uint8, "r", npy.HEADER_BYTES, (count, 3, 32, 32)))
    assert images[count - 1].sum() == 0


def test_labels_may_be_written_to(pictures: Path, tmp_path: Path) -> None:
    """Unlike the images, they are in memory. torch warns of arrays that are not writable, but only once a process."""
    store = packed(pictures, tmp_path / "store")
    files = SplitFiles(store.path, "train", (3, 32, 32), store.index["splits"]["train"])
    images, labels, _ = files.checked()
    assert (images.flags.writeable, labels.flags.writeable) == (False, True)


def test_a_store_is_mapped_not_read(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    maps = Path("/proc/self/maps")
    data = load_split("folder", tmp_path / "store", "train", 32)
    (mapped,) = [line for line in maps.read_text().splitlines() if str(tmp_path / "store") in line]
    assert mapped.split()[1] == "r--s", "readable, not writable"
    assert data.images.data_ptr() == int(mapped.split("-")[0], 16) + npy.HEADER_BYTES
