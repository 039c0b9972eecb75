"""Several ranks check a store together: each a part, and what one of them finds all of them raise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from fastdat.data import DataError, ImageSet, load_split, shared_check, split_files
from fastdat.data.joined_map import joined
from fastdat.data.split_files import checking_threads
from fastdat.util.ranks import Ranks
from tests import ranks as processes
from tests.data.helpers import flip_bit, packed

pytestmark = pytest.mark.usefixtures("small_shards")

T = TypeVar("T")


class Thread(Ranks):
    """A rank that is a thread of this process, so that what a test replaces is replaced for all of them."""

    def __init__(self, rank: int, said: list[Any], all_here: threading.Barrier) -> None:
        super().__init__(rank, len(said))
        self._said, self._all_here = said, all_here

    def all_of(self, here: T) -> list[T]:
        self._said[self.rank] = here
        self._all_here.wait(20)
        found = list(self._said)
        self._all_here.wait(20)
        return found


def on_ranks(count: int, function: Callable[[Ranks], T]) -> list[T | Exception]:
    """What ``function`` returns or raises on each of ``count`` ranks."""
    said: list[Any] = [None] * count
    all_here = threading.Barrier(count)

    def call(rank: int) -> T | Exception:
        try:
            return function(Thread(rank, said, all_here))
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


@pytest.fixture
def store(pictures: Path, tmp_path: Path) -> Path:
    """60 images to train on: 8 blocks, the last one of 4 images, in 4 shards."""
    return packed(pictures, tmp_path / "store").path


def loaded(store: Path, ranks: Ranks | None = None, progress: Any = None) -> ImageSet:
    return load_split("folder", store, "train", 32, progress, ranks=ranks)


@contextmanager
def noting_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Which block each rank reads: its turn, and the block's number."""
    read: list[tuple[int, int]] = []
    digests = split_files._digests

    def noted(files: Any, blocks: Any, part: Any) -> Any:
        read.extend((part.turn, block.number) for block in blocks)
        return digests(files, blocks, part)

    monkeypatch.setattr(split_files, "_digests", noted)
    yield read


def test_every_block_is_read_by_one_rank(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[int, list[tuple[int, int]]] = {rank: [] for rank in range(3)}
    with noting_blocks(monkeypatch) as read:
        sets = on_ranks(3, lambda ranks: loaded(store, ranks, lambda *step: steps[ranks.rank].append(step)))
    assert sorted(read) == [(0, 0), (0, 3), (0, 6), (1, 1), (1, 4), (1, 7), (2, 2), (2, 5)]
    assert steps == {
        0: [(8, 24), (16, 24), (24, 24)],
        1: [(8, 20), (16, 20), (20, 20)],
        2: [(8, 16), (16, 16)],
    }
    alone = loaded(store)
    for found in sets:
        assert isinstance(found, ImageSet)
        assert torch.equal(found.images, alone.images)
        assert found.fingerprint == alone.fingerprint


def test_more_ranks_than_blocks(store: Path) -> None:
    sets = on_ranks(11, lambda ranks: loaded(store, ranks))
    assert {type(found) for found in sets} == {ImageSet}


@pytest.mark.parametrize("block", range(8))
def test_what_one_rank_finds_all_raise(block: int, store: Path) -> None:
    path = store / f"train.images-{block // 2:04d}.u8"
    flip_bit(path, 8 * 3072 * (block % 2 * 8 + 3))
    for rank, error in enumerate(on_ranks(3, lambda ranks: loaded(store, ranks))):
        assert isinstance(error, DataError)
        assert f"block {block} (images {8 * block} to " in str(error)
        assert f"of {path} has changed since it was packed" in str(error)
        assert f"Remove {store} and pack the data set again" in str(error)
        notes = getattr(error, "__notes__", [])
        assert rank == block % 3 or f"raised by rank {block % 3} of 3" in notes


def test_machines_with_copies_of_their_own_check_all_of_them(
    store: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks 0 and 2 see one copy, rank 1 another: a part of the first would say nothing of the second."""
    packed(pictures, tmp_path / "copy")
    where = [store, tmp_path / "copy", store]
    with noting_blocks(monkeypatch) as read:
        on_ranks(3, lambda ranks: loaded(where[ranks.rank], ranks))
    assert sorted(read) == sorted([*((block % 2, block) for block in range(8)), *((0, b) for b in range(8))])
    flip_bit(tmp_path / "copy" / "train.images-0000.u8", 5)
    for error in on_ranks(3, lambda ranks: loaded(where[ranks.rank], ranks)):
        assert isinstance(error, DataError)
        assert str(tmp_path / "copy" / "train.images-0000.u8") in str(error)


def test_equal_files_of_two_machines_are_not_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their numbers may be equal, as those of copies of a whole disk are."""
    machines = iter(["a", "a", "b"])
    boot = type("Boot", (), {"exists": lambda self: True, "read_text": lambda self: next(machines)})
    monkeypatch.setattr(shared_check, "_BOOT_ID", boot())
    with (store / "store.json").open("rb") as file:
        found = on_ranks(3, lambda ranks: shared_check.sharers(ranks, file.fileno()))
    assert sorted(map(str, found)) in (
        ["[0, 1]", "[0, 1]", "[2]"],
        ["[0, 2]", "[0, 2]", "[1]"],
        ["[0]", "[1, 2]", "[1, 2]"],
    )


def test_images_that_one_rank_cannot_map(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would wait for it in the next exchange."""
    numbers = iter(range(3))

    def refused(parts: Any) -> Any:
        if next(numbers) == 1:
            raise OSError(12, "Cannot allocate memory")
        return joined(parts)

    monkeypatch.setattr(split_files, "joined", refused)
    errors = on_ranks(3, lambda ranks: loaded(store, ranks))
    assert {type(error) for error in errors} == {DataError}
    assert all("cannot be read: Cannot allocate memory" in str(error) for error in errors)


@pytest.mark.parametrize("name", ["store.json", "train.labels.npy", "train.images-0002.u8"])
def test_a_file_that_one_machine_lacks(name: str, store: Path, pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    where = [store, store, tmp_path / "copy"]
    for error in on_ranks(3, lambda ranks: loaded(where[ranks.rank], ranks)):
        assert isinstance(error, DataError)
        assert f"{tmp_path / 'copy' / name} is missing" in str(error)


def test_other_images_on_one_machine(store: Path, pictures: Path, tmp_path: Path) -> None:
    where = [store, store, tmp_path / "other"]
    next((pictures / "train" / "b").iterdir()).unlink()
    packed(pictures, tmp_path / "other")
    for error in on_ranks(3, lambda ranks: loaded(where[ranks.rank], ranks)):
        assert "holds other images on some machines than on others" in str(error)
    where[2] = pictures
    for error in on_ranks(3, lambda ranks: loaded(where[ranks.rank], ranks)):
        assert "is a packed store on some machines and holds the publisher's files on others" in str(error)


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(24)))
    assert [checking_threads(n) for n in (1, 3, 4, 8, 100)] == [8, 8, 6, 3, 1]


# --- through torch.distributed -----------------------------------------------------------------------------------


def test_processes(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_STORE", str(store))
    processes.run(2, tmp_path, _of_rank)


def _of_rank(rank: int, count: int) -> None:
    import os

    from fastdat.data import image_layout, image_set

    image_set.BLOCK, image_layout.PAGE_BYTES = 8, 4096  # type: ignore[misc]
    store, ranks = Path(os.environ["TEST_STORE"]), Ranks.now()
    assert len(loaded(store, ranks)) == 60
    if rank == 0:
        flip_bit(store / "train.images-0001.u8", 8 * 3072 * 9)  # block 3: rank 1 finds it
    ranks.barrier()
    with pytest.raises(DataError, match=r"block 3 \(images 24 to 31\)"):
        loaded(store, ranks)
